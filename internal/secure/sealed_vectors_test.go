package secure

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"testing"

	"github.com/emmansun/gmsm/sm3"
	"github.com/emmansun/gmsm/sm4"

	"github.com/owtp-go/owtp/internal/wire"
)

type sealedVectors struct {
	About    string          `json:"about"`
	Records  []recordVector  `json:"records"`
	Messages []messageVector `json:"messages"`
}

// A recordVector is one direction of a long connection.
type recordVector struct {
	Comment string          `json:"comment"`
	Suite   string          `json:"suite"`
	Secret  octets          `json:"direction_secret"`
	Key     octets          `json:"key"`
	IV      octets          `json:"iv"`
	Sealed  []sealedRecord  `json:"records"`
	Refused []refusedRecord `json:"refused"`
}

type sealedRecord struct {
	Packets []octets `json:"packets"`
	Body    octets   `json:"body"`
	Record  octets   `json:"record"`
}

type refusedRecord struct {
	Comment string   `json:"comment"`
	Before  []octets `json:"before"` // records that open before
	Record  octets   `json:"record"`
	Class   string   `json:"class"`
}

// A messageVector is one sealed message of HTTP or a message queue.
type messageVector struct {
	Comment       string           `json:"comment"`
	Suite         string           `json:"suite"`
	Transport     uint8            `json:"transport"`
	FromInitiator bool             `json:"from_initiator"`
	Secret        octets           `json:"direction_secret"`
	Session       octets           `json:"session_id"`
	Random        octets           `json:"random"`
	Request       octets           `json:"request_nonce,omitempty"`
	Key           octets           `json:"key"`
	Nonce         octets           `json:"nonce"`
	AAD           octets           `json:"aad"`
	Packet        octets           `json:"packet"`
	Message       octets           `json:"message"`
	Refused       []refusedSealing `json:"refused"`
}

type refusedSealing struct {
	Comment string `json:"comment"`
	Request octets `json:"request_nonce,omitempty"`
	Message octets `json:"message"`
	Class   string `json:"class"`
}

func generateRecords(t testing.TB, suite *Suite) []recordVector {
	_, i, r := vectorSessions(t, suite)
	toR, toI := octets(bytes.Clone(i.send[:])), octets(bytes.Clone(i.receive[:]))
	iSend, _, err := i.Directions()
	if err != nil {
		t.Fatal(err)
	}
	rSend, _, err := r.Directions()
	if err != nil {
		t.Fatal(err)
	}
	packets := []wire.Packet{
		{Kind: wire.Request, Method: "echo", Nonce: wire.Nonce(pattern(1, 16)), Data: []byte(`"a"`)},
		{Kind: wire.Response, Method: "echo", Nonce: wire.Nonce(pattern(1, 16)), Data: []byte(`"a"`), Status: 200},
		{Kind: wire.Heartbeat, Nonce: wire.Nonce(pattern(2, 16))},
	}
	// The first record has one packet, the second two, the third one.
	groups := [][]wire.Packet{packets[:1], packets[1:], packets[2:]}
	var out []recordVector
	for _, d := range []struct {
		comment   string
		secret    octets
		direction *Direction
	}{{"initiator to responder", toR, iSend}, {"responder to initiator", toI, rSend}} {
		v := recordVector{Comment: d.comment, Suite: suite.Name, Secret: d.secret, IV: bytes.Clone(d.direction.iv[:])}
		v.Key = refExpand(suite.hash, d.secret, []byte(infoRecordKey), suite.keySize)
		for _, g := range groups {
			var s sealedRecord
			for _, p := range g {
				s.Packets = append(s.Packets, p.Append(nil))
				s.Body = wire.AppendRecordPacket(s.Body, s.Packets[len(s.Packets)-1])
			}
			sealed, err := d.direction.Seal(append(wire.AppendHeader(nil, wire.TypeRecord), s.Body...))
			if err != nil {
				t.Fatal(err)
			}
			s.Record = sealed
			v.Sealed = append(v.Sealed, s)
		}
		one, two := v.Sealed[0].Record, v.Sealed[1].Record
		v.Refused = []refusedRecord{
			{"the first record left out", nil, two, "open"},
			{"a record repeated", []octets{one}, one, "open"},
			{"one left out in the middle", []octets{one}, v.Sealed[2].Record, "open"},
			{"ciphertext changed", []octets{one}, flipped(two, 5), "open"},
			{"tag changed", []octets{one}, flipped(two, -1), "open"},
			{"type changed", []octets{one}, append(octets{2, 5}, two[2:]...), "open"},
			{"version changed", []octets{one}, append(octets{1, 4}, two[2:]...), "version"},
			{"shorter than a tag", nil, one[:17], "open"},
			{"last octet cut off", nil, one[:len(one)-1], "open"},
		}
		out = append(out, v)
	}
	out[0].Refused = append(out[0].Refused, refusedRecord{"a record of the other direction, reflected", nil, out[1].Sealed[0].Record, "open"})
	out[1].Refused = append(out[1].Refused, refusedRecord{"a record of the other direction, reflected", nil, out[0].Sealed[0].Record, "open"})
	return out
}

func generateMessages(t testing.TB, suite *Suite) []messageVector {
	_, i, r := vectorSessions(t, suite)
	// The handshake of the second suite ran on a WebSocket; for messages its
	// session gets an ID and the transport of message queues.
	if suite != AES {
		i.ID, r.ID = sessionID(t), sessionID(t)
		i.Transport, r.Transport = 4, 4
	}
	nonce := wire.Nonce(pattern(0x10, 16))
	request := wire.Packet{Kind: wire.Request, Method: "echo", Nonce: nonce, Data: []byte(`"a"`)}
	response := wire.Packet{Kind: wire.Response, Method: "echo", Nonce: nonce, Data: []byte(`"a"`), Status: 200}
	var out []messageVector
	for _, m := range []struct {
		comment string
		s       *Session
		random  octets
		request wire.Nonce
		packet  []byte
	}{
		{"request", i, pattern(0x70, 24), wire.Nonce{}, request.Append(nil)},
		{"response", r, pattern(0x90, 24), nonce, response.Append(nil)},
	} {
		random := newTape(m.random)
		message, err := m.s.SealMessage(random, m.packet, m.request)
		if err != nil {
			t.Fatal(err)
		}
		random.end(t)
		v := messageVector{
			Comment: m.comment, Suite: suite.Name, Transport: m.s.Transport, FromInitiator: m.s.Initiator, Secret: bytes.Clone(m.s.send[:]),
			Session: m.s.ID, Random: m.random, Packet: m.packet, Message: message,
		}
		if !m.request.IsZero() {
			v.Request = m.request[:]
		}
		okm := refExpand(suite.hash, v.Secret, append([]byte(infoMessage), m.random...), suite.keySize+ivSize)
		v.Key, v.Nonce = okm[:suite.keySize], okm[suite.keySize:]
		v.AAD = m.s.messageAAD(message[:messageHeader], m.s.Initiator, m.request)
		v.Refused = []refusedSealing{
			{"session ID changed", v.Request, flipped(message, 2), "open"},
			{"random changed", v.Request, flipped(message, 34), "open"},
			{"ciphertext changed", v.Request, flipped(message, 60), "open"},
			{"tag changed", v.Request, flipped(message, -1), "open"},
			{"type changed to the other one", v.Request, append(octets{2, message[1] ^ 3}, message[2:]...), "open"},
			{"type of a record", v.Request, append(octets{2, 4}, message[2:]...), "open"},
			{"version changed", v.Request, append(octets{3}, message[1:]...), "version"},
			{"too short", v.Request, message[:73], "open"},
		}
		if v.Request != nil {
			v.Refused = append(v.Refused, refusedSealing{"as the answer to another request", pattern(0x11, 16), message, "open"},
				refusedSealing{"the request, reflected", v.Request, append(octets{2, 6}, out[0].Message[2:]...), "open"})
		}
		out = append(out, v)
	}
	return out
}

func TestSealedVectors(t *testing.T) {
	g := sealedVectors{About: "Sealed records of long connections (PROTOCOL 7.1) and sealed messages of HTTP and message queues (PROTOCOL 7.2). " +
		"direction_secret is key_initiator_to_responder or key_responder_to_initiator of handshake.json. " +
		"records are numbered from 0 in their order. In refused, before are records that open first; request_nonce is what the reader expects."}
	for _, s := range Suites() {
		g.Records = append(g.Records, generateRecords(t, s)...)
		g.Messages = append(g.Messages, generateMessages(t, s)...)
	}
	v := compareVectors(t, "sealed.json", g)
	if len(v.Records) != 4 || len(v.Messages) != 4 {
		t.Fatalf("%d records and %d messages", len(v.Records), len(v.Messages))
	}
	for _, r := range v.Records {
		checkRecords(t, r)
	}
	for _, m := range v.Messages {
		checkMessage(t, m)
	}
}

func refSuite(name string) (newHash func() hash.Hash, size int, block func([]byte) (cipher.Block, error)) {
	if name == "SM2-SM4GCM" {
		return sm3.New, 16, sm4.NewCipher
	}
	return sha256.New, 32, aes.NewCipher
}

func refGCM(t testing.TB, name string, key []byte) cipher.AEAD {
	t.Helper()
	_, _, block := refSuite(name)
	b, err := block(key)
	if err != nil {
		t.Fatal(err)
	}
	a, err := cipher.NewGCM(b)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func checkRecords(t *testing.T, v recordVector) {
	newHash, size, _ := refSuite(v.Suite)
	if !bytes.Equal(v.Key, refExpand(newHash, v.Secret, []byte("OWTP/2 record key\x00"), size)) ||
		!bytes.Equal(v.IV, refExpand(newHash, v.Secret, []byte("OWTP/2 record iv\x00"), 12)) {
		t.Errorf("%s, %s: key or IV", v.Suite, v.Comment)
	}
	for n, s := range v.Sealed {
		var body []byte
		for _, p := range s.Packets {
			body = refBytes(body, 1, p)
		}
		nonce := bytes.Clone(v.IV)
		for i, c := range binary.BigEndian.AppendUint64(nil, uint64(n)) {
			nonce[4+i] ^= c
		}
		record := refGCM(t, v.Suite, v.Key).Seal([]byte{2, 4}, nonce, body, []byte{2, 4})
		if !bytes.Equal(body, s.Body) || !bytes.Equal(record, s.Record) {
			t.Errorf("%s, %s: record %d", v.Suite, v.Comment, n)
		}
	}
	if len(v.Refused) == 0 {
		t.Error("nothing is refused")
	}
	for _, r := range v.Refused {
		d := directionOf(t, v.Suite, v.Secret)
		for _, b := range r.Before {
			if _, err := d.Open(bytes.Clone(b)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := d.Open(bytes.Clone(r.Record)); class(err) != r.Class {
			t.Errorf("%s, %s: %s: %v, want class %s", v.Suite, v.Comment, r.Comment, err, r.Class)
		}
		next := v.Sealed[len(r.Before)].Record
		if _, err := d.Open(bytes.Clone(next)); err == nil {
			t.Errorf("%s: the direction lives on", r.Comment)
		}
	}
}

// directionOf sets up one direction from its secret.
func directionOf(t testing.TB, suite string, secret []byte) *Direction {
	t.Helper()
	s, err := SuiteByName(suite)
	if err != nil {
		t.Fatal(err)
	}
	d, err := (&Session{Suite: s}).direction(secret)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func checkMessage(t *testing.T, v messageVector) {
	newHash, size, _ := refSuite(v.Suite)
	okm := refExpand(newHash, v.Secret, append([]byte("OWTP/2 message\x00"), v.Random...), size+12)
	typ, direction := byte(5), byte(1)
	if !v.FromInitiator {
		typ, direction = 6, 2
	}
	header := append([]byte{2, typ}, v.Session...)
	aad := append(bytes.Clone(header), v.Transport, direction)
	aad = append(aad, v.Request...)
	message := append(bytes.Clone(header), v.Random...)
	message = refGCM(t, v.Suite, okm[:size]).Seal(message, okm[size:], v.Packet, aad)
	for what, pair := range map[string][2][]byte{"key": {okm[:size], v.Key}, "nonce": {okm[size:], v.Nonce}, "AAD": {aad, v.AAD}, "message": {message, v.Message}} {
		if !bytes.Equal(pair[0], pair[1]) {
			t.Errorf("%s, %s: %s", v.Suite, v.Comment, what)
		}
	}
	s := readerOf(t, v)
	var request wire.Nonce
	copy(request[:], v.Request)
	plain, err := s.OpenMessage(bytes.Clone(v.Message), request)
	if err != nil || !bytes.Equal(plain, v.Packet) {
		t.Errorf("%s, %s: does not open: %v", v.Suite, v.Comment, err)
	}
	if len(v.Refused) == 0 {
		t.Error("nothing is refused")
	}
	for _, r := range v.Refused {
		copy(request[:], r.Request)
		if _, err := s.OpenMessage(bytes.Clone(r.Message), request); class(err) != r.Class {
			t.Errorf("%s, %s: %s: %v, want class %s", v.Suite, v.Comment, r.Comment, err, r.Class)
		}
	}
}

// readerOf is the side that opens v.
func readerOf(t testing.TB, v messageVector) *Session {
	t.Helper()
	suite, err := SuiteByName(v.Suite)
	if err != nil {
		t.Fatal(err)
	}
	s := &Session{ID: v.Session, Suite: suite, Transport: v.Transport, Initiator: !v.FromInitiator}
	copy(s.receive[:], v.Secret)
	s.send[0] = 1 // anything but erased
	return s
}
