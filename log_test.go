package owtp_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/internal/loglimit"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// Strangers that are refused ten thousand times neither fill the log nor hide
// what else happens, and the log says how much it leaves out.
func TestStrangersLogIsBounded(t *testing.T) {
	log := new(logBook)
	client := randomNode(t)
	host := startNode(t, owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Logger: log.logger()})
	must(t, host.HandleFunc("panic", func(*owtp.Context) { panic("planted") }))
	guarded := owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.HTTP, EnableKeyAgreement: true, AllowPeers: []string{client.NodeID()}}
	must(t, host.Listen(guarded))
	face, err := host.HTTPHandler(guarded)
	must(t, err)
	post := func(body []byte) {
		r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/owtp")
		r.Host = "localhost"
		face.ServeHTTP(httptest.NewRecorder(), r)
	}
	queue := guarded
	queue.Address, queue.ConnectType = freshBroker(), owtp.MQ
	must(t, host.Listen(queue))
	hello, _ := helloOf(t, transport.HTTP, wire.ModeSealed)
	queued, _ := helloOf(t, transport.MQ, wire.ModeSealed)
	for i := range 10_000 {
		post(hello)       // not on the list
		post(hello[:100]) // malformed
		if i%10 == 0 {
			deliver(t, overMQ, queue.Address, []transport.Message{binary(queued), binary(queued[:100])})
		}
	}
	face.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	must(t, client.Connect("host", owtp.ConnectConfig{Address: host.ListenerAddr(owtp.HTTP), ConnectType: owtp.HTTP, EnableKeyAgreement: true}))
	answer(t, client, "host", "panic", nil)
	kinds := make(map[string]int)
	for line := range strings.Lines(log.text()) {
		_, rest, _ := strings.Cut(line, "msg=")
		kind, _, _ := strings.Cut(rest, " node=")
		kinds[kind]++
	}
	const refused = `"peer is not among the allowed"`
	if kinds[refused] < loglimit.Burst {
		t.Errorf("%d lines say who was refused, want %d: %v", kinds[refused], loglimit.Burst, kinds)
	}
	for kind, n := range kinds {
		if n > loglimit.Burst+8 { // one more every ten seconds
			t.Errorf("%d lines say %s", n, kind)
		}
	}
	if kinds[`"handler panicked"`] != 1 {
		t.Errorf("a line of another kind does not appear: %v", kinds)
	}
}
