package owtp

import "sync"

// A v1Told knows which version 1 peers the log has spoken of. Each is said once
// what it cannot be protected from; of more than maxV1Told some are said again.
type v1Told struct {
	mu   sync.Mutex
	seen map[string]bool
}

const maxV1Told = 4096

func (t *v1Told) first(who string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen[who] {
		return false
	}
	if t.seen == nil {
		t.seen = make(map[string]bool)
	}
	if len(t.seen) >= maxV1Told {
		for other := range t.seen { // the order is random
			delete(t.seen, other)
			break
		}
	}
	t.seen[who] = true
	return true
}

// What the log says of a peer in each of version 1's modes (docs/V1.md).
const (
	v1RisksPlain        = "anybody on the way reads and changes what passes, runs it again, and answers in this node's place"
	v1RisksSigned       = "anybody on the way reads what passes, and answers in this node's place; a copy that comes first with digits moved between method and nonce runs in its place"
	v1RisksSealed       = "anybody can call under this key; who has seen a request can change parts of it"
	v1RisksSealedSigned = "answers are not signed, and who has this node's private key later opens what the peer's own nodes have sent"
	v1RisksOld          = "one key encrypts all of its session, so that copies of what is not signed run, and equal beginnings are seen to be equal"
)

// tellV1 tells the log once of a version 1 peer. Who is not proved is known by
// the address.
func (n *OWTPNode) tellV1(peer *Peer, signed, sealed, old bool) {
	if peer.dialed {
		return // v1Dialled.tell has said it
	}
	who := peer.id
	if peer.key == nil {
		who = network(peer.remote)
	}
	mode := modeOf(signed, sealed)
	kind := mode.String()
	if old {
		kind += " in packets of version 0"
	}
	if !n.v1Told.first(kind + "\x00" + who) {
		return
	}
	risks := map[[2]bool]string{
		{false, false}: v1RisksPlain, {true, false}: v1RisksSigned, {false, true}: v1RisksSealed, {true, true}: v1RisksSealedSigned,
	}[[2]bool{signed, sealed}]
	if old {
		risks += "; " + v1RisksOld
	}
	n.log.Warn("a peer speaks version 1", "peer", who, "remote", peer.remote, "mode", kind, "risks", risks)
}
