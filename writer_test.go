package owtp

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// Packets of all sizes, written out beforehand or not, are gathered in their order
// and come out as they were, in messages of bounded size.
func TestBatches(t *testing.T) {
	for _, form := range []transport.Form{transport.Binary, transport.JSON} {
		n := lifeNode(t, NodeConfig{Cert: NewRandomCertificate()})
		l := &link{node: n, form: form, ctx: t.Context()}
		var want [][]byte
		for i, size := range []int{1, largePacket, 10, 20 << 10, 20 << 10, 3, 70 << 10, 1, 1, 200 << 10, 9 << 10} {
			p := &wire.Packet{Kind: wire.Request, Method: "m", Nonce: wire.Nonce{byte(i + 1)}, Data: fmt.Appendf(nil, `"%s"`, bytes.Repeat([]byte{'x'}, size))}
			want = append(want, p.Append(nil))
			if run, err := l.out.push(t.Context(), l, outgoing{packet: p}); err != nil || run != (i == 0) {
				t.Fatalf("packet %d: %v, %v", i, run, err)
			}
		}
		var got [][]byte
		for b := l.out.take(l); b != nil; b = l.out.take(l) {
			packets, err := l.open(transport.Message{Form: form, Data: b.data})
			if err != nil {
				t.Fatal(err)
			}
			if len(b.data) > maxBatch+1024 && len(packets) > 1 {
				t.Errorf("%d packets go out in %d octets", len(packets), len(b.data))
			}
			for _, p := range packets {
				got = append(got, p.Append(nil))
			}
			b.release()
		}
		if len(got) != len(want) {
			t.Fatalf("%d packets, want %d", len(got), len(want))
		}
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Errorf("form %v: packet %d is another", form, i)
			}
		}
		if l.out.octets != 0 || l.out.writing {
			t.Errorf("%d octets are left", l.out.octets)
		}
	}
}
