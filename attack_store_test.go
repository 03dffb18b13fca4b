package owtp_test

import (
	"context"
	"strings"
	"testing"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/session/memory"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// A stolen store: what a node keeps of sessions, calls, bindings and its epoch
// is readable to nobody who has the store alone, and names no method and no
// content. Aliases stand in keys.
func TestAttackReadStore(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		stores := make([]*memory.Store, 2)
		for i := range stores {
			s, err := memory.New(memory.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			stores[i] = s
		}
		b := newBank(t, owtp.NodeConfig{Store: stores[0]})
		r := &rig{t: t, m: m, g: g, bank: b, client: newNode(t, owtp.NodeConfig{Store: stores[1]})}
		r.proxy = transporttest.NewProxy(t, m.tr, transporttest.Config(m.listenAddr()), transporttest.Config(b.listen(t, m, g)))
		if err := r.connect(); err != nil {
			t.Fatal(err)
		}
		if ok, err := r.payWith("a", &owtp.CallOptions{CallKey: []byte("0123456789abcdef")}); !ok {
			t.Fatal(err)
		}
		ctx := context.Background()
		seen := 0
		for i, s := range stores {
			keys, err := s.List(ctx, "", "", 1000)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range keys {
				rec, err := s.Get(ctx, k)
				if err != nil {
					t.Fatal(err)
				}
				seen++
				for _, secret := range []string{
					tokenMark, purposeMark, "receipt-for", "paid",
					string(b.Certificate().PrivateKeyBytes()), string(r.client.Certificate().PrivateKeyBytes()),
					string(b.Certificate().PublicKeyBytes()), string(r.client.Certificate().PublicKeyBytes()),
				} {
					if strings.Contains(string(rec.Value), secret) || strings.Contains(k, secret) {
						t.Errorf("store %d: %q stands readable under %q", i, secret, k)
					}
				}
			}
		}
		if seen < 4 { // two epochs, a binding, a call
			t.Errorf("only %d records were seen", seen)
		}
	})
}
