package owtp_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// A replica that has ended while the broker does not say so, because somebody
// listens at its queue, keeps its callers for one call only.
func TestQueueReplicaIsSilent(t *testing.T) {
	eachWay(t, mqWays[1:], func(t *testing.T, w way) {
		s := newStage(t, w)
		second := startNode(t, owtp.NodeConfig{Cert: s.host.Certificate()})
		must(t, second.Listen(s.listen))
		var served atomic.Pointer[owtp.OWTPNode]
		for _, n := range []*owtp.OWTPNode{s.host, second} {
			must(t, n.HandleFunc("work", func(c *owtp.Context) { served.Store(c.Node()) }))
		}
		s.connect(t)
		var asked atomic.Value
		b := house.At(s.listen.Address)
		b.OnMessage(func(q transporttest.Queued) []transporttest.Queued {
			if !q.Answer && strings.HasPrefix(q.To, transport.OwnQueuePrefix) {
				asked.Store(q.To)
			}
			return []transporttest.Queued{q}
		})
		answer(t, s.client, "testhost", "work", nil)
		gone, queue := served.Load(), asked.Load()
		must(t, gone.Close())
		b.OnMessage(func(q transporttest.Queued) []transporttest.Queued {
			if q.To == queue {
				return nil // heard, and not answered
			}
			return []transporttest.Queued{q}
		})
		options := &owtp.CallOptions{Timeout: time.Second}
		if _, err := s.client.CallContext(background(t), "testhost", "work", nil, options); err == nil {
			t.Error("a replica that has ended has answered")
		}
		options.Timeout = 4 * time.Second
		r, err := s.client.CallContext(background(t), "testhost", "work", nil, options)
		must(t, err)
		if !r.OK() || served.Load() == gone {
			t.Errorf("%+v", r)
		}
		begin := time.Now()
		answer(t, s.client, "testhost", "work", nil)
		if d := time.Since(begin); d > time.Second {
			t.Errorf("the next call still waits: %v", d)
		}
	})
}
