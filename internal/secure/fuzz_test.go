package secure

import (
	"bytes"
	"errors"
	"testing"

	"github.com/owtp-go/owtp/internal/wire"
)

// mutate replaces cut octets at the place by with.
func mutate(b []byte, at, cut uint16, with []byte) []byte {
	start := int(at) % (len(b) + 1)
	end := min(len(b), start+int(cut))
	return append(append(bytes.Clone(b[:start]), with...), b[end:]...)
}

// A whole handshake with one message changed in flight never panics, and never
// leaves both sides agreed.
func FuzzHandshake(f *testing.F) {
	type run struct {
		v      handshakeVector
		offer  Offer
		proof  bool
		hello  []byte
		reply  []byte
		finish []byte
	}
	var runs []run
	for _, s := range Suites() {
		v, _, _ := vectorSessions(f, s)
		runs = append(runs, run{v: v, offer: v.offer(f), hello: v.Hello, reply: v.Reply, finish: v.Finish})
	}
	p := generateProof(f)
	runs = append(runs, run{v: *p.base(), offer: p.offer(), proof: true, hello: p.Hello, reply: p.Reply})
	for which := range byte(3) {
		for message := range byte(3) {
			f.Add(which, message, uint16(0), uint16(0), []byte{})
			f.Add(which, message, uint16(2), uint16(1), []byte{8})
			f.Add(which, message, uint16(20), uint16(64), make([]byte, 64))
			f.Add(which, message, uint16(90), uint16(2), []byte{0x18, 3})
		}
	}
	f.Fuzz(func(t *testing.T, which, message byte, at, cut uint16, with []byte) {
		r := runs[int(which)%len(runs)]
		i, hello, _ := r.v.start(t, r.offer)
		sent := hello
		if message%3 == 0 {
			sent = mutate(hello, at, cut, with)
		}
		reply, responder, err := r.v.respond(t, sent)
		if err != nil {
			if message%3 != 0 || bytes.Equal(sent, hello) {
				t.Fatal(err)
			}
			return
		}
		received := reply
		if message%3 == 1 {
			received = mutate(reply, at, cut, with)
		}
		proof, initiator, err := i.Finish(bytes.Clone(received))
		same := bytes.Equal(sent, hello) && bytes.Equal(received, reply)
		if err != nil && same || err == nil && !same {
			t.Fatalf("the messages arrived as they were: %v, and the initiator says %v", same, err)
		}
		if err != nil {
			if proof != nil || initiator != nil || !errors.Is(err, ErrHandshake) {
				t.Fatal(err)
			}
			return
		}
		if r.proof {
			return
		}
		finish := bytes.Clone(initiator.Finish)
		if message%3 == 2 {
			finish = mutate(initiator.Finish, at, cut, with)
		}
		err = responder.Confirm(finish)
		if ok := bytes.Equal(finish, initiator.Finish); ok != (err == nil) || ok != responder.Confirmed {
			t.Fatalf("finish as it was: %v: %v", ok, err)
		}
	})
}

// Nothing but the sealed message itself opens, whatever it begins with.
func FuzzOpenMessage(f *testing.F) {
	var readers []*Session
	var sealed [][]byte
	var requests []wire.Nonce
	for _, s := range Suites() {
		for _, v := range generateMessages(f, s) {
			var request wire.Nonce
			copy(request[:], v.Request)
			readers, sealed, requests = append(readers, readerOf(f, v)), append(sealed, v.Message), append(requests, request)
		}
	}
	for n, m := range sealed {
		f.Add(byte(n), []byte(m))
		f.Add(byte(n+1), []byte(m))
		f.Add(byte(n), []byte(m[:MessageOverhead]))
	}
	f.Add(byte(0), []byte{})
	f.Fuzz(func(t *testing.T, which byte, message []byte) {
		n := int(which) % len(readers)
		good := bytes.Equal(message, sealed[n])
		if id, err := SessionOf(message); err == nil && len(id) != wire.SessionIDSize {
			t.Fatal("session ID")
		}
		_, err := readers[n].OpenMessage(bytes.Clone(message), requests[n])
		if good != (err == nil) {
			t.Fatalf("as sealed: %v: %v", good, err)
		}
	})
}

// The same for records of a long connection and records of a store.
func FuzzOpenRecord(f *testing.F) {
	records := generateRecords(f, SM4)[0]
	store := generateStore(f).Vaults[0]
	f.Add(false, []byte(records.Sealed[0].Record))
	f.Add(false, []byte(records.Sealed[1].Record))
	f.Add(true, []byte(store.Record))
	f.Add(true, []byte{1})
	f.Fuzz(func(t *testing.T, stored bool, b []byte) {
		if !stored {
			_, err := directionOf(t, SM4.Name, records.Secret).Open(bytes.Clone(b))
			if bytes.Equal(b, records.Sealed[0].Record) != (err == nil) {
				t.Fatal(err)
			}
			return
		}
		v, err := NewVault(store.StoreKey, nil, key(t, scalarB).ID())
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = v.Open(store.Purpose, store.Place, b)
		if bytes.Equal(b, store.Record) != (err == nil) {
			t.Fatal(err)
		}
	})
}
