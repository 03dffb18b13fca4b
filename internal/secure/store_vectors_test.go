package secure

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/atrest"
	"github.com/owtp-go/owtp/internal/wire"
)

type storeVectors struct {
	About      string `json:"about"`
	PrivateKey octets `json:"private_key"`
	StoreKey   octets `json:"default_store_key"`

	Vaults  []vaultVector   `json:"vaults"`
	Users   []vaultVector   `json:"user_sessions"`
	Changes []keyChange     `json:"key_changes"`
	IDs     []sessionVector `json:"session_ids"`
	Records []innerRecord   `json:"records"`
}

type vaultVector struct {
	Comment  string         `json:"comment"`
	StoreKey octets         `json:"store_key"`
	Node     octets         `json:"node_id"`
	Purpose  string         `json:"purpose"`
	Place    string         `json:"place"`
	Salt     octets         `json:"salt"`
	Key      octets         `json:"key"`
	Value    octets         `json:"value"`
	Record   octets         `json:"record"`
	Refused  []refusedStore `json:"refused"`
}

// A keyChange is what a reader with two keys takes while they are changed.
type keyChange struct {
	Comment  string       `json:"comment"`
	StoreKey octets       `json:"store_key"`
	Previous octets       `json:"previous_store_key"`
	Node     octets       `json:"node_id"`
	Purpose  string       `json:"purpose"`
	Place    string       `json:"place"`
	Value    octets       `json:"value"`
	Records  []seenRecord `json:"records"`
	IDs      []seenID     `json:"session_ids"`
}

type seenRecord struct {
	Comment string `json:"comment"`
	Record  octets `json:"record"`
	Stale   bool   `json:"stale"`
	Class   string `json:"class"`
}

type seenID struct {
	Comment string `json:"comment"`
	ID      octets `json:"session_id"`
	Taken   bool   `json:"taken"`
}

type refusedStore struct {
	Comment  string `json:"comment"`
	StoreKey octets `json:"store_key"`
	Node     octets `json:"node_id"`
	Purpose  string `json:"purpose"`
	Place    string `json:"place"`
	Record   octets `json:"record"`
	Class    string `json:"class"`
}

type sessionVector struct {
	Comment  string   `json:"comment"`
	StoreKey octets   `json:"store_key"`
	Node     octets   `json:"node_id"`
	TagKey   octets   `json:"tag_key"`
	Random   octets   `json:"random"`
	ID       octets   `json:"session_id"`
	Refused  []octets `json:"refused"`
}

type innerRecord struct {
	Comment string     `json:"comment"`
	Message string     `json:"message"` // its name in owtp.proto
	Fields  []refField `json:"fields"`
	Binary  octets     `json:"binary"`
}

func generateStore(t testing.TB) storeVectors {
	node := key(t, scalarB)
	id := node.ID()
	other := key(t, scalarA).ID()
	defaultKey, err := DefaultStoreKey(node)
	if err != nil {
		t.Fatal(err)
	}
	out := storeVectors{
		About: "What lies in a store (PROTOCOL 7.3), session IDs (PROTOCOL 6.6) and the records inside (PROTOCOL 8). " +
			"key is HKDF-SHA-256 of store_key with that salt and the info label || purpose || 00 || node_id; the additional data is purpose || 00 || place. " +
			"A user session has no node_id, and record is what follows its first octet, 02, in the store.",
		PrivateKey: scalarB, StoreKey: defaultKey,
	}
	out.Records = generateInner(t)
	for _, c := range []struct {
		comment, purpose, place string
		value                   octets
	}{
		{"a session", "session", "session/c0c1c2", out.Records[0].Binary},
		{"an empty value", "epoch", "epoch", octets{}},
	} {
		storeKey := pattern(0x01, 32)
		v := vaultVector{Comment: c.comment, StoreKey: storeKey, Node: id[:], Purpose: c.purpose, Place: c.place, Salt: pattern(0x55, 32), Value: c.value}
		vault, err := NewVault(storeKey, nil, id)
		if err != nil {
			t.Fatal(err)
		}
		random := newTape(v.Salt)
		if v.Record, err = vault.Seal(random, c.purpose, c.place, c.value); err != nil {
			t.Fatal(err)
		}
		random.end(t)
		v.Key = refExpand(sha256.New, refHMAC(sha256.New, v.Salt, storeKey), []byte(infoStoreRecord+c.purpose+"\x00"+string(id[:])), 32)
		refuse := func(comment string, change func(*refusedStore)) {
			r := refusedStore{Comment: comment, StoreKey: storeKey, Node: id[:], Purpose: c.purpose, Place: c.place, Record: v.Record, Class: "open"}
			change(&r)
			v.Refused = append(v.Refused, r)
		}
		refuse("moved to another place", func(r *refusedStore) { r.Place += "x" })
		refuse("read for another purpose", func(r *refusedStore) { r.Purpose = "call" })
		refuse("read by another node", func(r *refusedStore) { r.Node = other[:] })
		refuse("read with another key", func(r *refusedStore) { r.StoreKey = flipped(storeKey, 31) })
		refuse("an octet of the purpose moved to the place", func(r *refusedStore) {
			r.Purpose, r.Place = c.purpose[:len(c.purpose)-1], c.purpose[len(c.purpose)-1:]+"\x00"+c.place
		})
		refuse("format changed", func(r *refusedStore) { r.Record = flipped(v.Record, 0) })
		refuse("salt changed", func(r *refusedStore) { r.Record = flipped(v.Record, 1) })
		refuse("tag changed", func(r *refusedStore) { r.Record = flipped(v.Record, -1) })
		refuse("too short", func(r *refusedStore) { r.Record = v.Record[:48] })
		refuse("empty", func(r *refusedStore) { r.Record = octets{} })
		out.Vaults = append(out.Vaults, v)
	}
	out.Users = generateUsers(t)
	out.Changes = generateChange(t)
	good := sessionID(t)
	tagKey := refExpand(sha256.New, refHMAC(sha256.New, make([]byte, 32), pattern(0x01, 32)), append([]byte(infoSessionTagKey), id[:]...), 32)
	out.IDs = []sessionVector{{
		Comment: "16 random octets and the first 16 of their HMAC-SHA-256", StoreKey: pattern(0x01, 32), Node: id[:], TagKey: tagKey, Random: pattern(0xc0, 16), ID: good,
		Refused: []octets{flipped(good, 0), flipped(good, 15), flipped(good, 16), flipped(good, 31), good[:31], append(bytes.Clone(good), 0), make([]byte, 32), {}},
	}}
	return out
}

// userSession is a session of one field, "username", that is "kkk", and never
// ends by its age: as package session encodes it.
const userSession = "0101020304050607080000019b76daa800000000000000000008757365726e616d650510036b6b6b"

func generateUsers(t testing.TB) []vaultVector {
	value, err := hex.DecodeString(userSession)
	if err != nil {
		t.Fatal(err)
	}
	v := vaultVector{Comment: "the session of the peer \"a/b\" under the prefix \"web\"", StoreKey: pattern(0x01, 32), Node: octets{}, Purpose: "user", Place: "s/web/a%2Fb", Salt: pattern(0x66, 32), Value: value}
	v.Key = refExpand(sha256.New, refHMAC(sha256.New, v.Salt, v.StoreKey), []byte(infoStoreRecord+"user\x00"), 32)
	v.Record = sealAt(t, v.StoreKey, "", v.Purpose, v.Place, v.Salt, value)
	refuse := func(comment string, change func(*refusedStore)) {
		r := refusedStore{Comment: comment, StoreKey: v.StoreKey, Node: octets{}, Purpose: v.Purpose, Place: v.Place, Record: v.Record, Class: "open"}
		change(&r)
		v.Refused = append(v.Refused, r)
	}
	refuse("moved to another peer", func(r *refusedStore) { r.Place = "s/web/a" })
	refuse("moved to another prefix", func(r *refusedStore) { r.Place = "s/app/a%2Fb" })
	refuse("read as a node's", func(r *refusedStore) { id := key(t, scalarB).ID(); r.Node = id[:] })
	refuse("read for another purpose", func(r *refusedStore) { r.Purpose = "session" })
	refuse("read with another key", func(r *refusedStore) { r.StoreKey = flipped(v.StoreKey, 0) })
	refuse("not sealed", func(r *refusedStore) { r.Record = value })
	refuse("tag changed", func(r *refusedStore) { r.Record = flipped(v.Record, -1) })
	return []vaultVector{v}
}

func sealAt(t testing.TB, storeKey []byte, owner, purpose, place string, salt, value []byte) octets {
	k, err := atrest.NewKeys(storeKey, nil, owner)
	if err != nil {
		t.Fatal(err)
	}
	random := newTape(salt)
	record, err := k.Seal(nil, random, purpose, place, value)
	if err != nil {
		t.Fatal(err)
	}
	random.end(t)
	return record
}

func generateChange(t testing.TB) []keyChange {
	id := key(t, scalarB).ID()
	now, before, third := pattern(0x81, 32), pattern(0x01, 32), pattern(0x41, 32)
	c := keyChange{Comment: "the second of three steps: store_key seals, both open", StoreKey: now, Previous: before, Node: id[:], Purpose: "binding", Place: "n/x/bind/alias", Value: pattern(0x10, 32)}
	add := func(comment string, by []byte, stale bool, class string) {
		record := sealAt(t, by, string(id[:]), c.Purpose, c.Place, pattern(0x55, 32), c.Value)
		c.Records = append(c.Records, seenRecord{comment, record, stale, class})
		vault, err := NewVault(by, nil, id)
		if err != nil {
			t.Fatal(err)
		}
		sid, err := vault.NewSessionID(newTape(pattern(0xc0, 16)))
		if err != nil {
			t.Fatal(err)
		}
		c.IDs = append(c.IDs, seenID{comment, sid, class == "none"})
	}
	add("under store_key", now, false, "none")
	add("under previous_store_key", before, true, "none")
	add("under a third one", third, false, "open")
	return []keyChange{c}
}

func checkChange(t *testing.T, c keyChange) {
	vault, err := NewVault(c.StoreKey, c.Previous, identity.ID(c.Node))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range c.Records {
		value, stale, err := vault.Open(c.Purpose, c.Place, r.Record)
		if class(err) != r.Class || stale != r.Stale || err == nil && !bytes.Equal(value, c.Value) {
			t.Errorf("%s, %s: stale %v, %v", c.Comment, r.Comment, stale, err)
		}
	}
	for _, id := range c.IDs {
		if vault.CheckSessionID(id.ID) != id.Taken {
			t.Errorf("%s, session ID %s: taken %v", c.Comment, id.Comment, !id.Taken)
		}
	}
	if fresh, err := vault.NewSessionID(newTape(c.IDs[0].ID[:16])); err != nil || !bytes.Equal(fresh, c.IDs[0].ID) {
		t.Errorf("%s: a new session ID is not under store_key: %v", c.Comment, err)
	}
}

// generateInner are the records that the vault seals.
func generateInner(t testing.TB) []innerRecord {
	var out []innerRecord
	add := func(comment, message string, fields []refField, binary []byte) {
		out = append(out, innerRecord{comment, message, fields, binary})
	}
	suite := AES
	v := baseVector(suite)
	_, hello, _ := v.start(t, v.offer(t))
	_, half, err := v.respond(t, hello)
	if err != nil {
		t.Fatal(err)
	}
	s := half.Record()
	s.Expires, s.Retires = 1767229200000, pattern(0xd0, 32)
	add("a half-open session with the one that it retires", "SessionRecord", sessionFields(s), s.Append(nil))
	_, _, responder := vectorSessions(t, suite)
	s = responder.Record()
	s.Expires, s.ReplyQueue, s.RequestQueue = 1767229200000, "owtp.reply.7", "wallet"
	add("the same session confirmed, with queues", "SessionRecord", sessionFields(s), s.Append(nil))
	c := &wire.CallRecord{State: wire.CallRunning, Owner: wire.Nonce(pattern(1, 16)), Lease: 1767225630000, Digest: wire.Digest(pattern(0x20, 32)), Attempts: []wire.Nonce{wire.Nonce(pattern(0x10, 16))}}
	add("a call that runs", "CallRecord", callFields(c), c.Append(nil))
	c.State, c.Attempts = wire.CallDone, append(c.Attempts, wire.Nonce(pattern(0x30, 16)))
	reply := wire.Packet{Kind: wire.Response, Nonce: wire.Nonce(pattern(0x10, 16)), Data: []byte("1"), Status: 200}
	c.Reply = reply.Append(nil)
	add("a call that is done after two attempts", "CallRecord", callFields(c), c.Append(nil))
	return out
}

func TestStoreVectors(t *testing.T) {
	v := compareVectors(t, "store.json", generateStore(t))
	if len(v.Vaults) == 0 || len(v.Users) == 0 || len(v.Changes) == 0 || len(v.IDs) == 0 || len(v.Records) == 0 {
		t.Fatal("no vectors")
	}
	if got := refExpand(sha256.New, refHMAC(sha256.New, make([]byte, 32), v.PrivateKey), []byte("OWTP/2 store key\x00"), 32); !bytes.Equal(got, v.StoreKey) {
		t.Error("default store key")
	}
	for _, c := range append(v.Vaults, v.Users...) {
		checkVault(t, c)
	}
	for _, c := range v.Changes {
		checkChange(t, c)
	}
	for _, c := range v.IDs {
		tagKey := refExpand(sha256.New, refHMAC(sha256.New, make([]byte, 32), c.StoreKey), append([]byte("OWTP/2 session tag\x00"), c.Node...), 32)
		if want := append(bytes.Clone(c.Random), refHMAC(sha256.New, tagKey, c.Random)[:16]...); !bytes.Equal(tagKey, c.TagKey) || !bytes.Equal(want, c.ID) {
			t.Error("session ID")
		}
		vault, err := NewVault(c.StoreKey, nil, identity.ID(c.Node))
		if err != nil {
			t.Fatal(err)
		}
		if !vault.CheckSessionID(c.ID) {
			t.Error("a good session ID is refused")
		}
		for n, id := range c.Refused {
			if vault.CheckSessionID(id) {
				t.Errorf("session ID %d is taken", n)
			}
		}
	}
	for _, r := range v.Records {
		if !bytes.Equal(refEncode(r.Fields), r.Binary) {
			t.Errorf("%s: encoding", r.Comment)
		}
		var again []byte
		if r.Message == "SessionRecord" {
			s, err := wire.ParseSessionRecord(r.Binary)
			if err != nil {
				t.Fatal(err)
			}
			again = s.Append(nil)
		} else {
			c, err := wire.ParseCallRecord(r.Binary)
			if err != nil {
				t.Fatal(err)
			}
			again = c.Append(nil)
		}
		if !bytes.Equal(again, r.Binary) {
			t.Errorf("%s: is written as\n%x", r.Comment, again)
		}
	}
}

func checkVault(t *testing.T, c vaultVector) {
	key := refExpand(sha256.New, refHMAC(sha256.New, c.Salt, c.StoreKey), append([]byte("OWTP/2 at rest\x00"+c.Purpose+"\x00"), c.Node...), 32)
	b, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	a, err := cipher.NewGCM(b)
	if err != nil {
		t.Fatal(err)
	}
	record := a.Seal(append([]byte{1}, c.Salt...), make([]byte, 12), c.Value, []byte(c.Purpose+"\x00"+c.Place))
	if !bytes.Equal(key, c.Key) || !bytes.Equal(record, c.Record) {
		t.Errorf("%s: the reference seals\n%x", c.Comment, record)
	}
	open := func(storeKey, node octets, purpose, place string, record octets) ([]byte, error) {
		keys, err := atrest.NewKeys(storeKey, nil, string(node)) // what a vault has, and a session manager with no node
		if err != nil {
			t.Fatal(err)
		}
		value, _, err := keys.Open(purpose, place, bytes.Clone(record))
		return value, err
	}
	if value, err := open(c.StoreKey, c.Node, c.Purpose, c.Place, c.Record); err != nil || !bytes.Equal(value, c.Value) {
		t.Errorf("%s: does not open: %v", c.Comment, err)
	}
	if len(c.Refused) == 0 {
		t.Error("nothing is refused")
	}
	for _, r := range c.Refused {
		if _, err := open(r.StoreKey, r.Node, r.Purpose, r.Place, r.Record); class(err) != r.Class {
			t.Errorf("%s: %s: %v, want class %s", c.Comment, r.Comment, err, r.Class)
		}
	}
}
