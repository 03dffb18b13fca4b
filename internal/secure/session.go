package secure

import (
	"crypto/subtle"
	"fmt"
	"io"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/wire"
)

const secretSize = 32

// A Session is what a handshake leaves behind on one side. A responder's is
// half open until Confirm has verified the initiator.
//
// SealMessage and OpenMessage only read what nobody changes and may run
// concurrently with each other and with one Confirm. Everything else, Erase and
// Directions above all, needs the session alone.
type Session struct {
	ID        []byte // on HTTP and MQ
	Suite     *Suite
	Mode      wire.Mode
	Transport uint8
	Initiator bool // this side's role
	PeerKey   *identity.PublicKey
	OwnEpoch  wire.Nonce // this side's epoch when it was agreed
	PeerEpoch wire.Nonce
	Lifetime  uint64 // milliseconds, on HTTP and MQ
	Confirmed bool   // the peer is proved; always true for an initiator that has one
	Finish    []byte // the initiator's proof, to ride on its packets

	own          identity.ID
	transcript   [32]byte
	send         [secretSize]byte
	receive      [secretSize]byte
	initiatorMAC [secretSize]byte
	responderMAC [secretSize]byte
}

// Confirm verifies the initiator's finish. Once it has succeeded it may be
// called again and does nothing: the finish rides on packets until the
// initiator has seen an answer.
func (s *Session) Confirm(finish []byte) error {
	if s.Initiator || s.Confirmed {
		return nil
	}
	f, err := wire.ParseFinish(finish)
	if err != nil {
		return failed("%w", err)
	}
	mac := s.mac(s.initiatorMAC, labelInitiator, s.PeerKey.ID(), s.own, f.Signature)
	if subtle.ConstantTimeCompare(mac, f.MAC) != 1 {
		return failed("the initiator's MAC does not verify")
	}
	if !s.PeerKey.Verify(f.Signature, []byte(labelInitiator), s.transcript[:]) {
		return failed("the initiator's signature does not verify")
	}
	s.confirmed()
	return nil
}

// confirmed ends the handshake: the MAC keys have no more use.
func (s *Session) confirmed() {
	s.Confirmed = true
	clear(s.initiatorMAC[:])
	clear(s.responderMAC[:])
}

// Erase forgets the secrets. Nothing can be sealed or opened afterwards that
// was not set up before.
func (s *Session) Erase() {
	clear(s.send[:])
	clear(s.receive[:])
	clear(s.initiatorMAC[:])
	clear(s.responderMAC[:])
}

// erased reports whether one of the secrets is gone. A derived one is all zeros
// with a chance of 2^-256.
func (s *Session) erased() bool {
	return s.send == [secretSize]byte{} || s.receive == [secretSize]byte{}
}

// Format keeps secrets out of logs, whatever the verb and even if somebody
// prints a copy.
func (s Session) Format(f fmt.State, _ rune) {
	if s.Suite == nil {
		io.WriteString(f, "Session(none)")
		return
	}
	fmt.Fprintf(f, "Session(%s, %s)", s.Suite, s.Mode)
}

// Record returns what a store keeps of a responder's session. It shares the
// session's memory: encode it before Erase.
func (s *Session) Record() *wire.SessionRecord {
	r := &wire.SessionRecord{
		Suite: s.Suite.Name, Mode: s.Mode, Transport: s.Transport, PeerKey: s.PeerKey.Bytes(),
		OwnEpoch: s.OwnEpoch, PeerEpoch: s.PeerEpoch, Transcript: s.transcript[:], Send: s.send[:], Receive: s.receive[:],
	}
	if !s.Confirmed {
		r.InitiatorMAC = s.initiatorMAC[:]
	}
	return r
}

// Restore rebuilds a responder's session of that ID from its record.
func Restore(id []byte, own identity.ID, r *wire.SessionRecord) (*Session, error) {
	suite, err := SuiteByName(r.Suite)
	if err != nil {
		return nil, err
	}
	if len(id) != wire.SessionIDSize {
		return nil, fmt.Errorf("session ID has %d bytes, want %d", len(id), wire.SessionIDSize)
	}
	key, err := identity.ParsePublicKey(r.PeerKey)
	if err != nil {
		return nil, err
	}
	s := &Session{
		ID: id, Suite: suite, Mode: r.Mode, Transport: r.Transport, PeerKey: key,
		OwnEpoch: r.OwnEpoch, PeerEpoch: r.PeerEpoch, Confirmed: r.InitiatorMAC == nil, own: own,
	}
	copy(s.transcript[:], r.Transcript)
	copy(s.send[:], r.Send)
	copy(s.receive[:], r.Receive)
	copy(s.initiatorMAC[:], r.InitiatorMAC)
	return s, nil
}
