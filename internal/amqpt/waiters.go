package amqpt

import (
	"net/http"
	"sync/atomic"

	"github.com/owtp-go/owtp/transport"
)

// maxWaiting is how many calls of an endpoint may wait for the broker at one
// time: for a connection, or because it has blocked publishing.
const maxWaiting = 1024

// waiters counts who waits for the broker. The zero value is ready to use.
type waiters struct{ n atomic.Int64 }

func (w *waiters) enter() (leave func(), err error) {
	if w.n.Add(1) > maxWaiting {
		w.leave()
		return nil, transport.NotSent(&transport.Refusal{Status: http.StatusTooManyRequests, Reason: "too many calls wait for the broker"})
	}
	return w.leave, nil
}

func (w *waiters) leave() { w.n.Add(-1) }
