package owtp

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// What a signature says beside the data is checked for itself: on most ways
// something else would refuse such a packet as well, an epoch or a handshake,
// and nobody would notice that one wall has gone.

func signedWorld(t *testing.T) (n *OWTPNode, peer *identity.PrivateKey) {
	t.Helper()
	n, err := New(NodeConfig{Cert: NewRandomCertificate()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	if peer, err = identity.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	return n, peer
}

func sign(t *testing.T, key *identity.PrivateKey, p *wire.Packet) *wire.Packet {
	t.Helper()
	if err := secure.Sign(rand.Reader, key, p); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSignedForSomethingElse(t *testing.T) {
	n, key := signedWorld(t)
	other, err := identity.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(p *wire.Packet)
		signer *identity.PrivateKey
		known  *identity.PublicKey // of the session or connection
		after  func(p *wire.Packet)
		ok     bool
	}{
		"as it should be":             {ok: true},
		"within its own session":      {known: key.Public(), ok: true},
		"within another's session":    {known: other.Public()},
		"for another node":            {change: func(p *wire.Packet) { p.Recipient = wire.ID(other.Public().ID()) }},
		"for nobody":                  {change: func(p *wire.Packet) { p.Recipient = wire.ID{} }},
		"for another mode":            {change: func(p *wire.Packet) { p.Mode = wire.ModeSealedSigned }},
		"for another transport":       {change: func(p *wire.Packet) { p.Transport = uint8(transport.MQ) }},
		"by another key than it says": {signer: other, after: func(p *wire.Packet) { p.SenderKey = key.Public().Bytes() }},
		"changed afterwards":          {after: func(p *wire.Packet) { p.Data = []byte("2") }},
		"not at all":                  {after: func(p *wire.Packet) { p.Signature = nil }},
	} {
		p := &wire.Packet{
			Kind: wire.Request, Method: "m", Nonce: wire.Nonce{1}, Data: []byte("1"), Mode: wire.ModeSigned,
			Transport: uint8(transport.HTTP), Recipient: wire.ID(n.local.Key.ID()), Epoch: wire.Nonce{2}, Time: 3,
		}
		if c.change != nil {
			c.change(p)
		}
		signer := key
		if c.signer != nil {
			signer = c.signer
		}
		sign(t, signer, p)
		if c.after != nil {
			c.after(p)
		}
		peer := &Peer{kind: transport.HTTP, key: c.known}
		if ok := n.checkSigned(p, peer, wire.ModeSigned); ok != c.ok {
			t.Errorf("signed %s: accepted %v", name, ok)
		} else if ok != (peer.key != nil && peer.key.Equal(key.Public())) && c.known == nil {
			t.Errorf("signed %s: the peer is %v", name, peer.key)
		}
	}
}

func TestAnswerToSomethingElse(t *testing.T) {
	n, key := signedWorld(t)
	other, err := identity.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	req := sign(t, n.local.Key, &wire.Packet{
		Kind: wire.Request, Method: "m", Nonce: wire.Nonce{1}, Data: []byte("1"), Mode: wire.ModeSigned,
		Transport: uint8(transport.HTTP), Recipient: wire.ID(key.ID()), Epoch: wire.Nonce{2}, Time: 3,
	})
	another := *req
	another.Data = []byte("2")
	peer := &Peer{kind: transport.HTTP, key: key.Public(), id: key.ID().String()}
	for name, c := range map[string]struct {
		change func(p *wire.Packet)
		signer *identity.PrivateKey
		after  func(p *wire.Packet)
		ok     bool
	}{
		"as it should be":       {ok: true},
		"with another nonce":    {change: func(p *wire.Packet) { p.Nonce = wire.Nonce{9} }},
		"of another method":     {change: func(p *wire.Packet) { p.Method = "n" }},
		"that is a request":     {change: func(p *wire.Packet) { p.Kind = wire.Request }},
		"to another request":    {change: func(p *wire.Packet) { p.Digest = secure.RequestDigest(&another) }},
		"without a digest":      {change: func(p *wire.Packet) { p.Digest = wire.Digest{} }},
		"for another node":      {change: func(p *wire.Packet) { p.Recipient = wire.ID(other.ID()) }},
		"for another mode":      {change: func(p *wire.Packet) { p.Mode = wire.ModeSealedSigned }},
		"for another transport": {change: func(p *wire.Packet) { p.Transport = uint8(transport.MQ) }},
		"by another node":       {signer: other},
		"by another, as if":     {signer: other, after: func(p *wire.Packet) { p.SenderKey = key.Public().Bytes() }},
		"changed afterwards":    {after: func(p *wire.Packet) { p.Data = bytes.Repeat([]byte("2"), 2) }},
		"not signed":            {after: func(p *wire.Packet) { p.Signature, p.SenderKey = nil, nil }},
	} {
		p := &wire.Packet{
			Kind: wire.Response, Method: "m", Nonce: req.Nonce, Data: []byte("1"), Mode: wire.ModeSigned, Transport: req.Transport,
			Recipient: wire.ID(n.local.Key.ID()), Digest: secure.RequestDigest(req), Epoch: wire.Nonce{2}, Time: 4,
		}
		if c.change != nil {
			c.change(p)
		}
		signer := key
		if c.signer != nil {
			signer = c.signer
		}
		sign(t, signer, p)
		if c.after != nil {
			c.after(p)
		}
		if err := n.checkResponse(p, req, peer); (err == nil) != c.ok {
			t.Errorf("an answer %s: %v", name, err)
		}
	}
}

// Who answers under a name is looked at once more when the handshake is over,
// which was told whom to expect only if that was known when it began.
func TestRecognise(t *testing.T) {
	n, key := signedWorld(t)
	other, err := identity.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	newName := func(name string, pin identity.ID) *remote {
		cfg := ConnectConfig{Address: "nowhere", ConnectType: Memory, EnableSignature: true}
		s, err := cfg.checkDial()
		if err != nil {
			t.Fatal(err)
		}
		s.peer = pin
		return n.newRemote(name, s, s.transport())
	}
	trusts := func(r *remote, k *identity.PrivateKey) bool {
		t.Helper()
		err := r.recognise(ctx, k.Public())
		if err != nil && !errors.Is(err, ErrTrust) {
			t.Fatal(err)
		}
		return err == nil
	}
	if r := newName("pinned", key.ID()); trusts(r, other) || !trusts(r, key) {
		t.Error("a pinned name is not held to its pin")
	}
	if r := newName(key.ID().String(), identity.ID{}); trusts(r, other) || !trusts(r, key) {
		t.Error("a node ID as the name is not held to itself")
	}
	// Two at once that nothing was known of: the first one proved counts.
	first, second := newName("alias", identity.ID{}), newName("alias", identity.ID{})
	if !trusts(first, key) || trusts(second, other) || trusts(first, other) || !trusts(second, key) {
		t.Error("an alias is not held to what it was bound to meanwhile")
	}
}

// Over HTTP what answers a sealed request is sealed, whatever it says and even if
// somebody has guessed the nonce inside.
func TestWeakerAnswer(t *testing.T) {
	n, key := signedWorld(t)
	cfg := ConnectConfig{Address: "nowhere:1", ConnectType: HTTP, EnableKeyAgreement: true}
	s, err := cfg.checkDial()
	if err != nil {
		t.Fatal(err)
	}
	r := n.newRemote("peer", s, s.transport())
	req := &wire.Packet{Kind: wire.Request, Method: "m", Nonce: wire.Nonce{1}, Data: []byte("1")}
	peer := &Peer{kind: transport.HTTP, key: key.Public(), id: key.ID().String()}
	for _, status := range []uint64{0, StatusSuccess, ErrNotFoundMethod, ErrTooManyRequests, 600} {
		for _, form := range []transport.Form{transport.JSON, transport.Binary} {
			answer := response(req)
			answer.Status, answer.Data = status, []byte("2")
			in := inbound{form: form}
			m, err := in.encode(answer)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := r.decode(m, req, new(clientSession), peer)
			var e *Error
			if resp != nil || !errors.As(err, &e) || e.Proved {
				t.Errorf("an answer in the clear with status %d to a sealed request: %v, %v", status, resp, err)
			}
		}
	}
}
