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
	spare   []*waiter // as many as have waited at one time
}

// A waiter is one exchange.
type waiter struct {
	to      string      // subject that it has published to
	receipt string      // token of the stream's receipt, which its consumer never sees
	results chan result // has room for a receipt and an answer
}

// A result is an answer, a receipt of a stream, or why none can come.
type result struct {
	msg     *natsgo.Msg
	receipt bool
	err     error
}

// add registers an exchange, which removes itself.
func (w *waiting) add(to, receipt string, tokens ...string) *waiter {
	w.mu.Lock()
	defer w.mu.Unlock()
	var x *waiter
	if last := len(w.spare) - 1; last >= 0 {
		x, w.spare = w.spare[last], w.spare[:last]
	} else {
		x = &waiter{results: make(chan result, 2)}
	}
	x.to, x.receipt = to, receipt
	if w.byToken == nil {
		w.byToken = make(map[string]*waiter)
	}
	for _, t := range tokens {
		w.byToken[t] = x
	}
	return x
}

// remove ends an exchange, to which nothing more is given.
func (w *waiting) remove(x *waiter, tokens ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range tokens {
		delete(w.byToken, t)
	}
	for len(x.results) > 0 {
		<-x.results
	}
	w.spare = append(w.spare, x)
}

// answered gives a message to who waits for it. What nobody waits for, or not any
// more, is dropped.
func (w *waiting) answered(token string, m *natsgo.Msg) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if x := w.byToken[token]; x != nil {
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

// give never waits: who gets more than was asked for needs no more. The lock is
// held, or what is meant for one exchange could come to the next one.
func (x *waiter) give(r result) {
	select {
	case x.results <- r:
	default:
	}
}
