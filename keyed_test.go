package owtp_test

import (
	"testing"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// One key, two calls of the application, and a server that has lost its memory
// in between: the first may have run, so the second does not run again.
func TestRetryKeyAcrossCallsAndRestart(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		r := retryRig(t, m, g, owtp.NodeConfig{})
		again := newBank(t, owtp.NodeConfig{Cert: r.bank.Certificate()})
		addr := again.listen(t, m, g)
		lost := false
		r.onCall(func(f transporttest.Flow) []transport.Message {
			if f.Dir == transporttest.ToServer || lost {
				return pass(f)
			}
			lost = true
			r.proxy.SetTarget(roomy(addr))
			r.cut()
			return nil
		})
		opts := &owtp.CallOptions{CallKey: callKey, Timeout: patience}
		within(t, r.start("pay", payParams("a"), opts), "the outcome").unknown(t)
		within(t, r.start("pay", payParams("a"), opts), "the outcome").unknown(t)
		r.bank.ran(t, 1)
		again.ran(t, 0)
	})
}
