package owtp

import (
	"context"
	"encoding/hex"
	"errors"
	"time"

	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/session"
)

// lease is how long a record's owner is believed to be alive without renewing
// it (PROTOCOL §8).
const lease = 30 * time.Second

// reserve makes the one record of a call before its handler runs. It returns
// the refusal for everything that is not the first packet under the key.
func (n *OWTPNode) reserve(ctx context.Context, peerID string, p *wire.Packet) *refusal {
	callKey := p.Key()
	key := n.state.base + "call/" + peerID + "/" + hex.EncodeToString(callKey[:])
	rec := wire.CallRecord{
		State: wire.CallRunning, Owner: n.process, Lease: uint64(n.now().Add(lease).UnixMilli()),
		Digest: secure.CallDigest(p), Attempts: []wire.Nonce{p.Nonce},
	}
	life := n.remaining(p) + 2*n.cfg.Window
	first, err := n.state.putIfAbsent(ctx, purposeCall, key, rec.Append(nil), life)
	switch {
	case errors.Is(err, session.ErrFull):
		return refuse(ErrTooManyRequests, 0, "too many calls are remembered; try again later")
	case err != nil:
		n.log.Error("call record cannot be stored; the call is refused", "err", err)
		return refuse(ErrDenialOfService, 0, "the store cannot answer")
	case !first:
		return refuse(ErrReplayAttack, wire.ReasonCopy, "a call with this key was received before")
	}
	return nil
}
