package owtp

import (
	"errors"
	"fmt"
)

// v1Fields are those of ConnectConfig that mean something with AllowV1 only.
func (c *ConnectConfig) v1Fields() map[string]bool {
	return map[string]bool{
		"V1Cert": c.V1Cert.key != nil, "AllowV1Peers": c.AllowV1Peers != nil, "InsecureV1TrustAgreement": c.InsecureV1TrustAgreement,
		"InsecureV1BareText": c.InsecureV1BareText, "InsecureV1AnyTime": c.InsecureV1AnyTime,
		"InsecureV1PacketVersion0": c.InsecureV1PacketVersion0,
	}
}

var errV1Contradiction = errors.New("owtp: ConnectConfig.InsecureV1TrustAgreement contradicts EnableSignature, which asks for a signature on every request")

// checkV1 makes the rules for version 1 peers of a listener's configuration.
func (s *spec) checkV1() error {
	if !s.AllowV1 {
		for name, set := range s.v1Fields() {
			if set {
				return fmt.Errorf("owtp: ConnectConfig.%s has no meaning without AllowV1", name)
			}
		}
		return nil
	}
	switch {
	case s.ConnectType == Memory:
		return fmt.Errorf("owtp: ConnectConfig.AllowV1: version 1 does not exist for %q", Memory)
	case s.AllowPeers != nil && s.AllowV1Peers == nil:
		return errors.New("owtp: ConnectConfig.AllowV1 with AllowPeers needs AllowV1Peers: who may call in this version is not thereby allowed in version 1")
	case s.EnableSignature && s.InsecureV1TrustAgreement:
		return errV1Contradiction
	}
	s.v1 = &v1Rules{
		key: s.V1Cert.key, sign: s.EnableSignature, agree: s.EnableKeyAgreement, proved: s.AllowV1Peers != nil || s.Authorize != nil,
		trust: s.InsecureV1TrustAgreement, bareText: s.InsecureV1BareText, anyTime: s.InsecureV1AnyTime, version0: s.InsecureV1PacketVersion0,
		admits: s.Authorize,
	}
	if s.broker != nil {
		if err := s.checkV1Queues("AllowV1"); err != nil {
			return err
		}
	}
	var err error
	s.v1.allowed, err = idSet("AllowV1Peers", s.AllowV1Peers)
	return err
}

// v1IDs are the IDs under which the allowed peers are counted.
func (r *v1Rules) ids() []string {
	if r == nil {
		return nil
	}
	ids := make([]string, 0, len(r.allowed))
	for id := range r.allowed {
		ids = append(ids, v1ID(id))
	}
	return ids
}
