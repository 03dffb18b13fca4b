package owtp

import (
	"errors"
	"fmt"
	"time"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// Evidence is what signed packets prove to anybody, offline: who sent what to
// whom and when, by the sender's clock.
type Evidence struct {
	Request  *SignedPacket // nil if it holds a response only
	Response *SignedPacket // nil if it holds a request only
}

// A SignedPacket is one packet whose signature has been verified.
type SignedPacket struct {
	SignerID    string
	RecipientID string
	Kind        string
	Method      string
	Nonce       string // hex
	Time        time.Time
	Status      uint64 // of a response
	Msg         string // of a response
	Data        []byte
	Format      string // of Data
	Meta        map[string]string
	Mode        string // that it was sent in
	Transport   string // that it was sent over
}

// evidence saves signed packets: a binary message of one or two of them.
func evidence(packets ...*wire.Packet) []byte {
	b := wire.AppendHeader(nil, wire.TypePackets)
	for _, p := range packets {
		b = wire.AppendRecordPacket(b, p.Append(nil))
	}
	return b
}

// ErrEvidence is wrapped by the errors of VerifyEvidence.
var ErrEvidence = errors.New("not valid evidence")

// VerifyEvidence verifies what Response.Evidence or Context.Evidence returned.
// It needs no node, no network and no trust in who kept it. It does not say
// that a signer is somebody in particular: compare the IDs.
func VerifyEvidence(data []byte) (*Evidence, error) {
	typ, body, err := wire.ParseHeader(data)
	if err != nil {
		return nil, fmt.Errorf("owtp: %w: %w", ErrEvidence, err)
	}
	if typ != wire.TypePackets {
		return nil, fmt.Errorf("owtp: %w: it holds no packets", ErrEvidence)
	}
	packets, err := wire.ParseRecord(body)
	if err != nil {
		return nil, fmt.Errorf("owtp: %w: %w", ErrEvidence, err)
	}
	e := new(Evidence)
	for i, p := range packets {
		key, err := secure.Verify(p, nil)
		if err != nil {
			return nil, fmt.Errorf("owtp: %w: packet %d: %w", ErrEvidence, i+1, err)
		}
		s := signedPacket(p, key.ID())
		switch {
		case p.Kind != wire.Response && e.Request == nil && e.Response == nil:
			e.Request = s
		case p.Kind == wire.Response && e.Response == nil:
			e.Response = s
		default:
			return nil, fmt.Errorf("owtp: %w: it must hold a request, a response to it, or both in this order", ErrEvidence)
		}
	}
	if e.Request != nil && e.Response != nil {
		if packets[1].Digest != secure.RequestDigest(packets[0]) || e.Response.SignerID != e.Request.RecipientID || e.Response.RecipientID != e.Request.SignerID {
			return nil, fmt.Errorf("owtp: %w: the response belongs to another request", ErrEvidence)
		}
	}
	return e, nil
}

func signedPacket(p *wire.Packet, signer identity.ID) *SignedPacket {
	meta := make(map[string]string, len(p.Meta))
	for _, m := range p.Meta {
		meta[m.Key] = m.Value
	}
	return &SignedPacket{
		Meta:     meta,
		SignerID: signer.String(), RecipientID: identity.ID(p.Recipient).String(), Kind: p.Kind.String(), Method: p.Method,
		Nonce: fmt.Sprintf("%x", p.Nonce[:]), Time: time.UnixMilli(int64(p.Time)), Status: p.Status, Msg: p.Msg,
		Data: p.Data, Format: p.DataFormat(), Mode: p.Mode.String(), Transport: transport.Kind(p.Transport).String(),
	}
}
