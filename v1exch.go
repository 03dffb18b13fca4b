package owtp

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/owtp-go/owtp/internal/legacy"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// Calls of version 1 over exchanges.

// exchangeV1 is exchange in version 1. A request carries nothing by which the
// peer could tell a further attempt from a second call: only what may run twice
// is sent twice.
func (r *remote) exchangeV1(ctx context.Context, p *wire.Packet, repeatable bool) (out outcome, err error) {
	refused := false
	for attempt, pause := 1, firstPause; ; attempt, pause = attempt+1, 2*pause {
		a, err := r.attemptV1(ctx, p)
		out = outcome{resp: a.resp, req: p, sent: a.sent || out.sent, proved: a.proved}
		if err == nil || !repeatable || !out.sent || a.mode == wire.ModeOpen || attempt == maxAttempts || ctx.Err() != nil || errors.Is(err, ErrTrust) {
			return out, err
		}
		var e *Error
		var refusal *transport.Refusal
		if !errors.Is(err, errV1Forgot) && (errors.As(err, &e) || errors.As(err, &refusal)) {
			if refused {
				return out, err
			}
			refused = true // and nobody has proved it: one more attempt
		}
		r.node.log.Info("call is tried again", "peer", r.name, "method", p.Method, "attempt", attempt+1, "reason", err)
		if !sleep(ctx, pause/2+rand.N(pause)) {
			return out, ctx.Err()
		}
	}
}

// attemptV1 makes one exchange of a call.
func (r *remote) attemptV1(ctx context.Context, p *wire.Packet) (a attempted, err error) {
	d := r.v1
	a.mode = r.mode()
	if err := v1Carries(p); err != nil {
		return a, err
	}
	var agreement *v1Agreement
	if a.mode.Sealed() {
		if agreement, err = d.agreed(ctx); err != nil {
			return a, err
		}
		defer d.leave(agreement)
	}
	q, open, err := d.request(p, a.mode, agreement)
	if err != nil {
		return a, err
	}
	resp, sent, err := d.exchange(ctx, q)
	a.sent = sent
	if err == nil {
		a.resp, a.proved, err = open(resp)
	}
	if agreement != nil {
		d.note(agreement, a.proved)
	}
	return a, err
}

// v1NotSpoken is what people are told where nobody seems to speak version 1.
const v1NotSpoken = "It looks as if version 1 were not spoken there: nodes of version 2 allow it with ConnectConfig.AllowV1 only"

// exchange sends a packet and returns the answer to it. sent reports whether the
// peer may have got it.
func (d *v1Dialled) exchange(ctx context.Context, q *legacy.Packet) (resp *legacy.Packet, sent bool, err error) {
	b, err := q.Append(nil)
	if err != nil {
		return nil, false, err
	}
	m, err := d.remote.exch.Exchange(ctx, transport.Message{Form: transport.Legacy, Data: b})
	if err != nil {
		var r *transport.Refusal
		if errors.As(err, &r) && r.Status == http.StatusUnsupportedMediaType {
			err = &transport.Refusal{Status: r.Status, Reason: r.Reason + ". " + v1NotSpoken}
		}
		return nil, !errors.Is(err, transport.ErrNotSent), err
	}
	resp, err = legacy.ParsePacket(m.Data, d.node.cfg.Limits.MaxMessage)
	switch {
	case err != nil:
		return nil, true, newError(ErrResponseMethodDiffer, "the answer is no packet of version 1: %w", err)
	case resp.Kind != legacy.Response || resp.Method != q.Method || resp.Nonce != q.Nonce:
		return nil, true, errV1Another
	}
	return resp, true, nil
}

func (d *v1Dialled) askByExchange(ctx context.Context, q *legacy.Packet) (*legacy.Packet, error) {
	resp, _, err := d.exchange(ctx, q)
	return resp, err
}

// agreed returns an agreement that calls may take, and makes one if there is
// none. Concurrent callers join one. It is given back with leave.
func (d *v1Dialled) agreed(ctx context.Context) (*v1Agreement, error) {
	if a := d.fresh(); a != nil {
		return a, nil
	}
	r := d.remote
	if err := r.lock(ctx); err != nil {
		return nil, err
	}
	defer r.unlock()
	if a := d.fresh(); a != nil {
		return a, nil // by who held the gate
	}
	ctx, cancel := context.WithTimeout(ctx, d.node.cfg.Limits.HandshakeTimeout)
	defer cancel()
	ended := r.ended()
	a, err := d.agree(ctx, r.mode(), d.askByExchange)
	if err != nil {
		return nil, err
	}
	a.born, a.at, a.ended, a.refs = time.Now(), time.Now(), ended, 2
	d.mu.Lock()
	old := d.agreement
	d.agreement = a
	d.mu.Unlock()
	d.leave(old)
	return a, nil
}

// fresh returns the agreement of now unless it has lasted long enough, or the
// peer may have forgotten it: what has not been used for a while, an exchange
// that failed, a connection that ended.
func (d *v1Dialled) fresh() *v1Agreement {
	life := min(d.node.cfg.Limits.SessionLifetime, maxV1Session)
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.agreement
	if a == nil || time.Since(a.born) >= life-life/8 || time.Since(a.at) >= proofAge || a.ended != d.remote.ended() {
		return nil
	}
	a.refs++
	return a
}

// note remembers how the last exchange under an agreement went.
func (d *v1Dialled) note(a *v1Agreement, proved bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a.at = time.Time{}
	if proved {
		a.at = time.Now()
	}
}

// leave is told that somebody has no more use for an agreement.
func (d *v1Dialled) leave(a *v1Agreement) {
	if a == nil {
		return
	}
	d.mu.Lock()
	a.refs--
	last := a.refs == 0
	d.mu.Unlock()
	if last {
		a.erase()
	}
}

// close forgets what is agreed on.
func (d *v1Dialled) close() {
	d.mu.Lock()
	a := d.agreement
	d.agreement = nil
	d.mu.Unlock()
	d.leave(a)
}

// open reaches the peer for the first time. Without an agreement there is nothing
// that it could prove.
func (d *v1Dialled) reach(ctx context.Context) error {
	mode := d.remote.mode()
	if mode.Sealed() {
		a, err := d.agreed(ctx)
		if err != nil {
			return err
		}
		d.leave(a)
	}
	d.tell(mode)
	return nil
}
