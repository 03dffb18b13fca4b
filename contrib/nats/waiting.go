package nats

import (
	"fmt"
	"slices"
	"sync"

	natsgo "github.com/nats-io/nats.go"

	"github.com/owtp-go/owtp/transport"
)

// waiting are the exchanges that wait for something, by token. It is safe for
// concurrent use.
type waiting struct {
	mu      sync.Mutex
	byToken map[string]*waiter
}

// A waiter is one exchange.
type waiter struct {
	to      string // subject that it has published to
	receipt string // token of the stream's receipt, which its consumer never sees
	results chan result
}

// A result is an answer, a receipt of a stream, or why none can come.
type result struct {
	msg     *natsgo.Msg
	receipt bool
	err     error
}

// add registers an exchange, which removes itself.
func (w *waiting) add(x *waiter, tokens ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byToken == nil {
		w.byToken = make(map[string]*waiter)
	}
	for _, t := range tokens {
		w.byToken[t] = x
	}
}

func (w *waiting) remove(tokens ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range tokens {
		delete(w.byToken, t)
	}
}

// answered gives a message to who waits for it. What nobody waits for, or not any
// more, is dropped.
func (w *waiting) answered(token string, m *natsgo.Msg) {
	w.mu.Lock()
	x := w.byToken[token]
	w.mu.Unlock()
	if x != nil {
		x.give(result{msg: m, receipt: token == x.receipt})
	}
}

// deny ends the exchanges with a subject that the broker has just not let us
// publish to. If there are several nobody knows which one it was: permissions may
// have changed after another one was sent.
func (w *waiting) deny(subject string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var denied []*waiter
	for _, x := range w.byToken {
		if x.to == subject && !slices.Contains(denied, x) {
			denied = append(denied, x)
		}
	}
	err := fmt.Errorf("owtp: the account may not publish to %q", subject)
	if len(denied) == 1 {
		err = transport.NotSent(err)
	}
	for _, x := range denied {
		x.give(result{err: err})
	}
}

// give never waits: who gets more than was asked for needs no more.
func (x *waiter) give(r result) {
	select {
	case x.results <- r:
	default:
	}
}
