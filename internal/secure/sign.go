package secure

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/emmansun/gmsm/sm3"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/wire"
)

// ErrSignature says that a packet carries no signature or one that does not
// verify; which of the two is for the log, not for the peer.
var ErrSignature = errors.New("signature missing or wrong")

// Sign puts the signer's key and its signature over every other field into p.
func Sign(rand io.Reader, key *identity.PrivateKey, p *wire.Packet) error {
	p.SenderKey = key.Public().Bytes()
	p.Signature = nil
	var err error
	withUnsigned(p, func(octets []byte) {
		p.Signature, err = key.Sign(rand, []byte(signLabel(p.Kind)), octets)
	})
	return err
}

// scratch is where packets are encoded that nothing is done with but hashing.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

// maxScratch keeps one large packet from holding its memory for good.
const maxScratch = 256 << 10

// withUnsigned calls f with the octets that a signature of p covers. They are
// used again for another packet once f has returned.
func withUnsigned(p *wire.Packet, f func(octets []byte)) {
	buf := scratch.Get().(*[]byte)
	octets := p.AppendUnsigned((*buf)[:0])
	f(octets)
	if cap(octets) <= maxScratch {
		*buf = octets[:0]
	}
	scratch.Put(buf)
}

// Verify checks the signature of p under the key that p carries and returns
// that key. If known is that key already, it need not be parsed again. Who the
// key belongs to and whether that is who was meant is for the caller to check.
func Verify(p *wire.Packet, known *identity.PublicKey) (*identity.PublicKey, error) {
	if len(p.Signature) == 0 || len(p.SenderKey) == 0 {
		return nil, ErrSignature
	}
	key := known
	if key == nil || !bytes.Equal(key.Bytes(), p.SenderKey) {
		var err error
		if key, err = identity.ParsePublicKey(p.SenderKey); err != nil {
			return nil, ErrSignature
		}
	}
	valid := false
	withUnsigned(p, func(octets []byte) {
		valid = key.Verify(p.Signature, []byte(signLabel(p.Kind)), octets)
	})
	if !valid {
		return nil, ErrSignature
	}
	return key, nil
}

func signLabel(k wire.Kind) string { return labelPacket + k.String() + "\x00" }

// RequestDigest names a request, all but its signature, in its response.
func RequestDigest(p *wire.Packet) wire.Digest { return digest(labelDigest, p) }

func digest(label string, p *wire.Packet) (d wire.Digest) {
	h := sm3.New()
	io.WriteString(h, label)
	withUnsigned(p, func(octets []byte) { h.Write(octets) })
	h.Sum(d[:0])
	return d
}

// CallDigest names what a call asks for, whichever attempt carries it: method,
// format, data and user metadata (PROTOCOL §8).
func CallDigest(p *wire.Packet) wire.Digest {
	call := wire.Packet{Kind: p.Kind, Method: p.Method, Format: p.Format, Data: p.Data, Meta: p.Meta}
	return digest(labelCall, &call)
}
