package owtp

import (
	"context"
	"fmt"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/transport"
)

// checkVersion refuses what a peer that is dialled in version 1 has no meaning
// for. Nothing falls back from one version to the other.
func (s *spec) checkVersion() error {
	switch s.Version {
	case 1:
	case 0, 2:
		s.Version = 0 // for comparisons
		return nil
	default:
		return fmt.Errorf("owtp: ConnectConfig.Version is %d; it must be 1, 2 or 0, which is 2", s.Version)
	}
	for _, name := range s.Suites {
		if name != v1Suite {
			return fmt.Errorf("owtp: ConnectConfig.Suites has %.40q; version 1 has %q only", name, v1Suite)
		}
	}
	switch {
	case s.ConnectType == Memory:
		return fmt.Errorf("owtp: ConnectConfig.Version: version 1 does not exist for %q", Memory)
	case s.EnableSignature && s.InsecureV1TrustAgreement:
		return errV1Contradiction
	case s.DataFormat != "" && s.DataFormat != "json":
		return fmt.Errorf("owtp: ConnectConfig.DataFormat is %.40q; version 1 has \"json\" only", s.DataFormat)
	}
	if s.broker != nil {
		return s.checkV1Queues("Version 1")
	}
	return nil
}

// v1Suite is the name of the one way to encrypt that version 1 has.
const v1Suite = "aes"

// packetVersion is that of the packets that a peer is called with in version 1,
// and of the sealed ones that it may send. The configuration alone says which:
// nobody on the way can choose.
func (s *spec) packetVersion() int64 {
	if s.InsecureV1PacketVersion0 {
		return 0
	}
	return 1
}

// isV1 reports whether a peer is dialled in version 1.
func (s *spec) isV1() bool { return s.Version == 1 }

// v1Key is this node's key towards a version 1 peer that it dials.
func (n *OWTPNode) v1Key(s *spec) *identity.PrivateKey {
	if s.V1Cert.key != nil {
		return s.V1Cert.key
	}
	return n.local.Key
}

// dialConfig is transportConfig for a peer that is dialled.
func (n *OWTPNode) dialConfig(s *spec) transport.Config {
	c := n.transportConfig(s)
	if s.isV1() {
		c.LegacyKey = n.v1Key(s).Public().String()
		// What nobody reads while its caller waits is not to run later.
		c.MaxQueueTime = min(c.MaxQueueTime, n.timeout())
	}
	return c
}

// peerID is the ID of who must answer, "" if nobody is named.
func (s *spec) peerID() string {
	switch {
	case s.peer.IsZero():
		return ""
	case s.isV1():
		return v1ID(s.peer)
	}
	return s.peer.String()
}

// alias is the name under which first contacts are remembered. Who is known in
// this version is not known in the other: the key may be another one, and what
// it proves is worth less.
func (s *spec) alias(name string) string {
	if s.isV1() {
		return v1Prefix + name
	}
	return name
}

// expectedV1 is what expectedPeer asks of a peer in version 1 besides.
func (n *OWTPNode) expectedV1(ctx context.Context, name string, s *spec) error {
	if !s.isV1() {
		return nil
	}
	if s.peer == n.v1Key(s).ID() {
		return trustError("%q is this node itself", name)
	}
	if n.cfg.Trust == TrustPinned && !s.EnableKeyAgreement {
		return trustError("this node trusts pinned peers only, and a version 1 peer proves who it is by a key agreement only; set EnableKeyAgreement for %q", name)
	}
	if !s.peer.IsZero() {
		return nil
	}
	// Whoever is known must not be met as a stranger by asking in version 1.
	known, err := n.state.binding(ctx, name)
	if err != nil {
		return newError(ErrDenialOfService, "the binding of %q cannot be read: %w", name, err)
	}
	if !known.IsZero() {
		return trustError("%q is bound to %s in this version; set ConnectConfig.PeerID to who it must be in version 1, the same ID if it has no other key there", name, known)
	}
	return nil
}
