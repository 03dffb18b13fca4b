package owtp_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// Replay a request that the peer has refused, under proof, for want of room. The
// caller has been told that it did not run and will make a new call; the old
// one must not run as well.
func TestAttackReplayRefused(t *testing.T) {
	each(t, exchangeMedia, proofModes, func(t *testing.T, m medium, g guard) {
		limits := quick
		limits.MaxRequestsPerPeer = 1
		b := newBank(t, owtp.NodeConfig{Limits: limits})
		release := make(chan struct{})
		var holding atomic.Bool
		if err := b.HandleFunc("hold", func(*owtp.Context) { holding.Store(true); <-release }); err != nil {
			t.Fatal(err)
		}
		r := &rig{t: t, m: m, g: g, bank: b, client: newNode(t, owtp.NodeConfig{})}
		r.proxy = transporttest.NewProxy(t, m.tr, transporttest.Config(m.listenAddr()), transporttest.Config(b.listen(t, m, g)))
		if err := r.connect(); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { defer close(done); r.client.CallSync("bank", "hold", nil) }()
		waitFor(t, "the peer is busy", holding.Load)
		before := len(r.requests())
		resp, err := r.client.CallContext(short(t), "bank", "pay", payParams("a"), &owtp.CallOptions{Timeout: time.Second})
		if err != nil || resp.Status != owtp.ErrTooManyRequests {
			t.Fatalf("not refused for want of room: %+v, %v", resp, err)
		}
		refused := r.requests()[before]
		close(release)
		<-done
		deliver(t, m, b.ListenerAddr(m.name), []transport.Message{refused})
		b.ran(t, 0)
	})
}
