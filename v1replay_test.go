package owtp

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/mr-tron/base58"

	"github.com/owtp-go/owtp/internal/legacy"
)

// The exchanges that were recorded between today's nodes, replayed against a
// node of ours that has the recorded server's key.

type v1Recorded struct {
	Client    string `json:"client_private"`
	Server    string `json:"server_private"`
	ServerID  string `json:"server_node_id"`
	Scenarios []v1Scenario
}

type v1Scenario struct {
	Name     string
	Requires bool `json:"server_requires_signature"`
	HTTP     []struct{ Request, Response v1Body }
	WS       *struct {
		Request  []string `json:"handshake_request"`
		Messages []v1Frame
	}

	// Of scenarios whose client was a node:
	Agrees    bool             `json:"client_key_agreement"`
	Signs     bool             `json:"client_signs"`
	Results   []v1ClientResult `json:"client_results"`
	Agreement *v1Agreed
}

type v1Body struct {
	Body      string
	Head      []string
	Decrypted *string `json:"decrypted_d"`
}

// v1ClientResult is what the recorded client's call came to.
type v1ClientResult struct {
	Method string
	Status uint64
	Msg    string
	Result any
}

type v1Agreed struct {
	Ephemeral string `json:"initiator_tmp_private"`
}

func (a *v1Agreed) scalar(t testing.TB) []byte {
	t.Helper()
	b, err := base58.Decode(a.Ephemeral)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type v1Frame struct {
	From      string
	Opcode    int
	Text      string
	Decrypted *string `json:"decrypted_d"`
}

func readV1(t testing.TB) (r v1Recorded) {
	v1Vectors(t, "transcripts.json", &r)
	if len(r.Scenarios) != 40 {
		t.Fatalf("%d scenarios", len(r.Scenarios))
	}
	return r
}

// recordedHost has the recorded server's key.
func recordedHost(t testing.TB, r v1Recorded, cfg ConnectConfig) *v1Host {
	t.Helper()
	cert, err := NewCertificate(r.Server)
	if err != nil {
		t.Fatal(err)
	}
	cfg.InsecureV1BareText = true
	return newV1Host(t, cfg, func(c *NodeConfig) { c.Cert = cert })
}

func head(lines []string, name string) string {
	for _, l := range lines {
		if n, v, ok := strings.Cut(l, ": "); ok && strings.EqualFold(n, name) {
			return v
		}
	}
	return ""
}

// v1Otherwise are the recorded answers that a node of ours does not give, and
// what it gives instead.
var v1Otherwise = map[string]string{
	// Nothing is agreed on with who does not sign where that is asked for.
	"http_unauthorized_keyagreement/0": `plain {"status":401,"msg":"verify signature failed, unauthorized","result":null}`,
	// The same signature with digits moved, and an old one.
	"http_replay/2":        `plain {"status":409,"msg":"the packet's time is outside this node's window; check both clocks","result":null}`,
	"http_old_timestamp/0": `plain {"status":409,"msg":"the packet's time is outside this node's window; check both clocks","result":null}`,
	// What does not verify uses up nobody's nonce.
	"http_unauthorized_bad_signature/1": `plain {"status":200,"msg":"success","result":{"x":1}}`,
	// There is an answer, and none in plain where the request was sealed.
	"http_unencodable_result/0": `plain {"status":500,"msg":"the result does not encode","result":null}`,
	"http_unencodable_result/1": `sealed {"status":502,"msg":"Decrypt data error","result":null}`, // its d is empty
	// Data is sealed for an agreement only if the check value says so.
	"http_keyagreement_no_state/1": `sealed {"status":502,"msg":"Decrypt data error","result":null}`,
	"http_keyagreement_no_state/2": `sealed {"status":502,"msg":"Decrypt data error","result":null}`,
	"http_keyagreement_failed/0":   `plain {"status":502,"msg":"key agreement failed","result":null}`,
	// Nothing runs of what does not decrypt, or of nothing.
	"http_keyagreement_bad_ciphertext/1": `sealed {"status":502,"msg":"Decrypt data error","result":null}`,
	"http_keyagreement_bad_ciphertext/2": `sealed {"status":502,"msg":"Decrypt data error","result":null}`,
	"http_keyagreement_bad_ciphertext/3": `sealed {"status":502,"msg":"Decrypt data error","result":null}`,
}

// static makes a host's ephemerals its static key, as today's nodes have it, so
// that answers can be compared octet by octet.
func (h *v1Host) static() {
	scalar := h.node.local.Key.Bytes()
	h.node.mu.Lock()
	defer h.node.mu.Unlock()
	for v := range h.node.v1Sessions {
		v.ephemeral = func() io.Reader { return bytes.NewReader(scalar) }
	}
	h.node.v1Ephemeral = func() io.Reader { return bytes.NewReader(scalar) }
}

// inside is what an answer says to who has the host's key, and how.
func (h *v1Host) inside(request, response string) string {
	h.t.Helper()
	q, err := legacy.ParsePacket([]byte(request), 1<<20)
	if err != nil {
		h.t.Fatal(err)
	}
	p, err := legacy.ParsePacket([]byte(response), 1<<20)
	if err != nil {
		h.t.Fatal(err)
	}
	if p.Keys.ResponderCheck == "" {
		return "plain " + string(p.Data)
	}
	s := h.sessionOf(q.Keys)
	if !s.IsResponse(p.Keys) {
		h.t.Fatal("not the session of the request")
	}
	sealed, err := p.Text()
	if err != nil {
		h.t.Fatal(err)
	}
	text, err := s.Open(sealed, p.Version, p.Nonce)
	if err != nil {
		h.t.Fatal(err)
	}
	return "sealed " + string(text)
}

// sessionOf is the session that a recorded request belongs to.
func (h *v1Host) sessionOf(k legacy.Keys) *legacy.Session {
	h.t.Helper()
	s, err := legacy.Respond(bytes.NewReader(h.node.local.Key.Bytes()), h.node.local.Key, k)
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

func TestV1RecordedHTTP(t *testing.T) {
	t.Parallel()
	r := readV1(t)
	same, otherwise := 0, 0
	for _, s := range r.Scenarios {
		if s.HTTP == nil {
			continue
		}
		h := recordedHost(t, r, ConnectConfig{EnableSignature: s.Requires, InsecureV1PacketVersion0: s.Name == "http_keyagreement_v0"})
		h.static()
		for i, e := range s.HTTP {
			if p, err := legacy.ParsePacket([]byte(e.Response.Body), 1<<20); err == nil {
				h.now.Store(p.Time * 1000)
			}
			if s.Name == "http_keyagreement_failed" { // the answer has the request's time
				h.now.Store(v1Time * 1000)
			}
			got := h.post(e.Request.Body, head(e.Request.Head, "a"))
			name := fmt.Sprintf("%s/%d", s.Name, i)
			if want := v1Otherwise[name]; want != "" {
				otherwise++
				if inside := h.inside(e.Request.Body, got); inside != want {
					t.Errorf("%s: got %s\nwant %s", name, inside, want)
				}
				continue
			}
			same++
			if got != e.Response.Body {
				t.Errorf("%s: got\n%s\nrecorded\n%s", name, got, e.Response.Body)
			}
		}
	}
	if otherwise != len(v1Otherwise) || same < 40 {
		t.Errorf("%d answers are the recorded ones, %d others are not", same, otherwise)
	}
}
