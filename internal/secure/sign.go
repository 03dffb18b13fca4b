package secure

import (
	"bytes"
	"errors"
	"io"

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
	sig, err := key.Sign(rand, []byte(signLabel(p.Kind)), p.AppendUnsigned(nil))
	if err != nil {
		return err
	}
	p.Signature = sig
	return nil
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
	if !key.Verify(p.Signature, []byte(signLabel(p.Kind)), p.AppendUnsigned(nil)) {
		return nil, ErrSignature
	}
	return key, nil
}

func signLabel(k wire.Kind) string { return labelPacket + k.String() + "\x00" }

// RequestDigest names a request, all but its signature, in its response.
func RequestDigest(p *wire.Packet) wire.Digest {
	h := sm3.New()
	io.WriteString(h, labelDigest)
	h.Write(p.AppendUnsigned(nil))
	return wire.Digest(h.Sum(nil))
}

// CallDigest names what a call asks for, whichever attempt carries it: method,
// format, data and user metadata (PROTOCOL §8).
func CallDigest(p *wire.Packet) wire.Digest {
	call := wire.Packet{Kind: p.Kind, Method: p.Method, Format: p.Format, Data: p.Data, Meta: p.Meta}
	h := sm3.New()
	io.WriteString(h, labelCall)
	h.Write(call.AppendUnsigned(nil))
	return wire.Digest(h.Sum(nil))
}
