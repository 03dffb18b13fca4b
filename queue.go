package owtp

import (
	"context"
	"strings"
	"time"

	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// The receiving side of message queues: what is different there from HTTP
// (PROTOCOL §§7, 8). Everything else of an exchange is in exchange.go.

// serveQueued answers one message of a queue. Its answer goes to the queue that
// the message names inside its signature or seal, not to the one that the broker
// says.
func (f *listener) serveQueued(ctx context.Context, in *inbound, m transport.Message) (transport.Message, error) {
	if f.bound != nil {
		select {
		case <-f.bound:
		case <-ctx.Done():
			return transport.Message{}, &transport.Refusal{Status: int(ErrDenialOfService), Reason: "not listening yet"}
		}
	}
	if f.remote != nil && f.remote.ctx.Err() != nil {
		return transport.Message{}, &transport.Refusal{Status: int(ErrDenialOfService), Reason: "the connection is closing"}
	}
	if m.Form == transport.Legacy {
		return f.answerV1Queued(ctx, in.peer, m)
	}
	answer, err := f.answer(ctx, in, m)
	if err == nil && in.request != nil && in.request.Kind == wire.OneWay {
		return transport.Message{}, nil // nobody waits for it
	}
	answer.To = in.replyTo
	return answer, err
}

// named notes the queue that a message names for its answer. It must be one that
// a connection of this protocol made for itself: a request must not make this
// node write to anybody's queue.
func (f *listener) named(in *inbound, queue string) error {
	if f.kind != transport.MQ {
		return nil
	}
	if !strings.HasPrefix(queue, transport.ReplyQueuePrefix) {
		return &transport.Refusal{Status: int(ErrBadRequest), Reason: "the message names no reply queue of this protocol"}
	}
	in.replyTo = queue
	return nil
}

// ownQueue is where further messages of one caller should go: to this very
// replica, where replicas share no store and so know nothing of each other's
// callers; and to this very connection of a node that was called back.
func (f *listener) ownQueue() string {
	if f.kind != transport.MQ || f.remote == nil && f.node.state.shared {
		return ""
	}
	return f.endpoint().Queues().Own
}

func (f *listener) endpoint() transport.Endpoint {
	if f.remote != nil {
		return f.remote.exch.(transport.Endpoint)
	}
	return f.tl.(transport.Endpoint)
}

// freshInQueue checks the time of a packet that may have lain in a queue: it is
// fresh until its caller stops waiting, or for the window if that is longer.
func (f *listener) freshInQueue(p *wire.Packet) *refusal {
	n := f.node
	window := n.cfg.Window
	age := n.now().Sub(time.UnixMilli(int64(min(p.Time, 1<<62))))
	switch {
	case p.Time > 1<<62 || age < -window:
		return refuse(ErrReplayAttack, wire.ReasonClock, "the packet's time is ahead of this node's window; check both clocks")
	case age > max(window, min(n.remaining(p), n.cfg.MaxQueueTime)):
		// Whether the clocks differ or the queue was long, nobody waits.
		return refuse(ErrRequestTimeout, wire.ReasonUnknown, "the packet was in the queue for longer than its caller waits; or check both clocks")
	}
	return nil
}

// openCalls is whom calls that nobody has proved are recorded under. It is no
// peer's ID.
const openCalls = "open"

// recordedAs says under whom a request is recorded. An open one is recorded
// against the broker's own copies.
func (in *inbound) recordedAs() (peerID string) {
	if in.mode == wire.ModeOpen {
		return openCalls
	}
	return in.peer.id
}
