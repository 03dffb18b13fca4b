package owtp

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/owtp-go/owtp/internal/legacy"
	"github.com/owtp-go/owtp/transport"
)

// FuzzV1Serve gives a listener any octets as a request of version 1, over HTTP and
// from a queue. It does not panic; what it answers is the response to the request;
// and a handler sees JSON only, a peer only where its signature verifies, and
// sealed parameters only of the packet versions that are taken.
func FuzzV1Serve(f *testing.F) {
	r := readV1(f)
	cert, err := NewCertificate(r.Server)
	if err != nil {
		f.Fatal(err)
	}
	h := newV1Host(f, ConnectConfig{InsecureV1AnyTime: true}, func(c *NodeConfig) { c.Cert = cert; c.Limits.MaxHandshakeRate = 1 << 20 })
	h.static()
	var l *listener
	h.node.mu.Lock()
	for l = range h.node.listeners {
		l.v1.ephemeral = h.node.v1Ephemeral
	}
	h.node.mu.Unlock()
	for _, s := range r.Scenarios {
		for _, e := range s.HTTP {
			f.Add([]byte(e.Request.Body), head(e.Request.Head, "a"), false)
		}
		if s.WS != nil {
			for _, m := range s.WS.Messages {
				f.Add([]byte(m.Text), head(s.WS.Request, "a"), true)
			}
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, announced string, queued bool) {
		spec, rules := *l.spec, *l.spec.v1
		rules.version0, rules.bareText, spec.v1 = len(body)%2 == 0, len(body)%3 == 0, &rules
		own := &listener{node: l.node, spec: &spec, kind: l.kind, v1: l.v1} // a queue's in all that matters here
		if queued {
			own.kind, spec.WriteQueueName, announced = transport.MQ, "to-client", ""
		}
		m, err := own.ServeExchange(t.Context(), transport.Remote{Addr: "127.0.0.1:1"}, transport.Message{Form: transport.Legacy, Data: body, Announced: announced, Redelivered: len(body)%5 == 0})
		p, malformed := legacy.ParsePacket(body, 1<<20)
		for _, s := range h.taken() {
			if !json.Valid([]byte(s.data)) || malformed != nil {
				t.Errorf("a handler has seen %q", s.data)
			}
			if s.sealed && p.Version != 1 && !(p.Version == 0 && rules.version0) {
				t.Errorf("sealed in version %d: %q", p.Version, body)
			}
			if s.proved {
				if key, err := legacy.Verify(p, nil); err != nil || v1ID(key.ID()) != s.pid {
					if _, err := legacy.ParseKey(announced); err != nil || p.Keys.Initiator != "" {
						t.Errorf("%s is proved by %q", s.pid, body)
					}
				}
			} else if !strings.HasPrefix(s.pid, "anon:") {
				t.Errorf("nobody is proved, and the peer is %s", s.pid)
			}
		}
		if queued && (err == nil) != (malformed == nil) {
			t.Errorf("to the dead letters: %v, malformed: %v", err, malformed)
		}
		if err != nil || len(m.Data) == 0 || m.Form == transport.Text {
			return
		}
		answer, err := legacy.ParsePacket(m.Data, 1<<20)
		if err != nil || malformed != nil || answer.Kind != legacy.Response || answer.Nonce != p.Nonce || answer.Method != p.Method || answer.Version != p.Version || answer.Signature != "" || queued && m.To != "to-client" {
			t.Errorf("%q is answered %q, %v", body, m.Data, err)
		}
	})
}
