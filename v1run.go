package owtp

import (
	"context"
	"sync"
	"time"

	"github.com/owtp-go/owtp/internal/legacy"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// execute brings a request that has passed all checks to its handler. The packet
// that the handler sees is one of this version, so that nothing behind the
// router knows of the other.
func (q *v1Request) execute(ctx context.Context) (resp *wire.Packet, closeAfter bool) {
	n := q.n
	n.tellV1(&q.peer, q.signed, q.request != nil, q.request != nil && q.p.Version == 0)
	w := &wire.Packet{Kind: wire.Request, Method: q.p.Method, Data: q.data, Time: uint64(max(q.p.Time, 0))}
	recorded, r := q.recorded(ctx, w)
	if r != nil {
		return q.again(r).response(w), false
	}
	if recorded == nil {
		if r := q.admit(); r != nil {
			return r.response(w), false
		}
		defer q.leave()
		resp, closeAfter, _ = n.run(n.handlerContext(ctx, w), &q.peer, w, q.signed)
		return v1Texts(resp), closeAfter
	}
	c, answer := n.claimed(ctx, recorded.peerID, recorded.p, recorded.epoch, q.in.redelivered, q.admit)
	if answer != nil {
		if answer.Reason == wire.ReasonCopy {
			answer = v1Replay.response(w)
		}
		return answer, false
	}
	defer q.leave()
	if !q.alone(ctx, recorded) {
		n.settle(c, nil, false)
		return v1Replay.response(w), false
	}
	c.once = q.peer.kind != transport.MQ // where the broker may, for the same packet
	if q.peer.link != nil && q.peer.key != nil && q.request != nil {
		n.v1Known(q.peer.link, q.peer.id)
	}
	resp, closeAfter = n.runClaimed(ctx, &q.peer, w, q.signed, c)
	return v1Texts(resp), closeAfter
}

// v1Texts gives refusals that no handler wrote the text that version 1 has.
func v1Texts(resp *wire.Packet) *wire.Packet {
	if resp.Status == ErrNotFoundMethod && resp.Reason == wire.ReasonNotRun {
		resp.Msg = "can not find method"
	}
	return resp
}

// A v1Record says under whom, and as what, a request is recorded.
type v1Record struct {
	peerID string
	p      *wire.Packet
	epoch  wire.Nonce
}

// v1OpenCalls is whom requests are recorded under that only a broker can repeat.
const v1OpenCalls = v1Prefix + openCalls

// recorded returns what keeps a copy of the request from running, or nil if
// nothing can: nobody could tell a copy of it from a second call.
func (q *v1Request) recorded(ctx context.Context, w *wire.Packet) (*v1Record, *refusal) {
	var digest wire.Digest
	rec := *w
	peerID := q.peer.id
	once := false
	signed := q.signed && !q.bySession()
	if q.request != nil && !signed {
		digest, once = legacy.Once(q.p)
	}
	switch {
	case signed:
		var err error
		if digest, err = legacy.Digest(q.p); err != nil {
			return nil, v1Garbled
		}
		if q.in.rules.anyTime {
			rec.Remaining = uint64(maxRemaining / time.Millisecond)
		}
	case once:
		peerID = q.agreedWith() // also where that proves nothing: it is enough to be counted
		// The time is not sealed: a copy is fresh as long as its session is.
		rec.Remaining = uint64(maxV1Session / time.Millisecond)
	case q.peer.kind == transport.MQ:
		// Against the broker's own copies, as an open request of this version.
		var err error
		if digest, err = legacy.Whole(q.p); err != nil {
			return nil, v1Garbled
		}
		peerID = v1OpenCalls
	default:
		return nil, nil
	}
	rec.Nonce = wire.Nonce(digest[:len(rec.Nonce)])
	epoch, err := q.n.state.epoch(ctx)
	if err != nil {
		q.n.log.Error("the store cannot give the epoch; the request is refused", "err", err)
		return nil, refuseBusy
	}
	if since := q.n.v1Epoch.since(q.n, epoch); q.signed && !q.in.rules.anyTime && q.p.Time < since {
		return nil, v1Restarted
	}
	return &v1Record{peerID, &rec, epoch}, nil
}

// alone reports whether a signed and sealed request has not run without its
// signature, which somebody could take off a copy, and keeps it from doing so
// where such a copy would be taken at all.
func (q *v1Request) alone(ctx context.Context, signed *v1Record) bool {
	rules := q.in.rules
	if !q.signed || q.request == nil || q.in.line != nil && q.in.line.own == nil || rules.sign || rules.proved && !rules.trust {
		return true
	}
	digest, once := legacy.Once(q.p)
	if text, err := q.p.Text(); err != nil || text == "" || !once {
		return true // none would run, or none can be told from a second call
	}
	rec := *signed.p
	rec.Nonce, rec.Remaining = wire.Nonce(digest[:len(rec.Nonce)]), uint64(maxV1Session/time.Millisecond)
	c, answer := q.n.claimed(ctx, q.peer.id, &rec, signed.epoch, false, func() *refusal { return nil })
	if answer != nil {
		return false
	}
	c.once = true
	q.n.settle(c, &wire.Packet{}, true)
	return true
}

// A v1Epoch knows since when requests of version 1 are recorded in the store
// without a gap. They carry no epoch of this node, as this version's do, so that
// their time must tell whether a copy would be found.
type v1Epoch struct {
	mu    sync.Mutex
	is    wire.Nonce
	begin int64 // Unix seconds; 0: from before this process
}

func (e *v1Epoch) since(n *OWTPNode, now wire.Nonce) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.is == now:
	case e.is.IsZero() && !n.state.forgets:
		e.is = now
	case e.is.IsZero():
		e.is, e.begin = now, n.state.born.Unix()
	default: // the store was flushed, or the clock was set back
		e.is, e.begin = now, n.now().Unix()
	}
	return e.begin
}

// who counts the request. A connection's have been counted when they came in.
func (q *v1Request) who() string {
	if q.peer.key == nil {
		return v1Prefix + host(q.peer.remote) // apart from those of this version there
	}
	return q.peer.id
}

func (q *v1Request) admit() *refusal {
	n := q.n
	switch {
	case n.closing.Load() && !q.in.accepted:
		return refuseClosing
	case q.peer.link == nil && !n.running.take(q.who(), len(q.data)):
		return refuseMany
	}
	return nil
}

func (q *v1Request) leave() {
	if q.peer.link == nil {
		q.n.running.give(q.who(), len(q.data))
	}
}

// refuse answers what did not get as far as a handler.
func (q *v1Request) refuse(r *refusal) *legacy.Packet {
	return q.answer(&wire.Packet{Status: r.status, Msg: r.msg, Data: []byte("null")})
}

// v1Overhead is more than everything of a response but its data.
const v1Overhead = 2048

// answer makes a response of version 1, sealed if the request belongs to an
// agreement. It is never signed: version 1 has no signed responses.
func (q *v1Request) answer(resp *wire.Packet) *legacy.Packet {
	out := q.n.v1Response(q.p)
	err := q.fill(out, resp)
	if err == nil && len(out.Data)+v1Overhead > q.n.cfg.Limits.MaxMessage {
		err = q.fill(out, &wire.Packet{Status: ErrTooLarge, Msg: "the result is larger than a message may be", Data: []byte("null")})
	}
	if err != nil { // the session has ended, or the program's result is not what it should be
		q.n.log.Error("a version 1 request cannot be answered", "method", q.p.Method, "err", err)
		return nil
	}
	return out
}

func (q *v1Request) fill(out *legacy.Packet, resp *wire.Packet) error {
	data := resp.Data
	if len(data) == 0 {
		data = []byte("null")
	}
	text, err := (&legacy.Result{Status: resp.Status, Msg: resp.Msg, Result: data}).Append(nil)
	if err != nil {
		return err
	}
	if q.response == nil {
		return out.SetJSON(text)
	}
	return q.response.use(func(s *legacy.Session) error {
		out.Keys = s.ResponseKeys()
		return out.SealJSON(s, text)
	})
}
