package owtp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/codec"
)

// What the tests of the public surface have in common. They wait for what must
// happen, with a bound that only a broken program reaches, and never measure
// more than which of two things came first.

const patience = 20 * time.Second

// A way is one transport, one form and one data format.
type way struct {
	connect string
	sign    bool
	suite   string // "" without KeyAgreement
	format  string // "" is JSON
}

func (w way) String() string {
	form := "open"
	switch {
	case w.sign && w.suite != "":
		form = "signed+" + w.suite
	case w.sign:
		form = "signed"
	case w.suite != "":
		form = w.suite
	}
	if w.format != "" {
		form += "+" + w.format
	}
	return w.connect + "/" + form
}

// over is the same way over another transport.
func (w way) over(connect string) way {
	w.connect = connect
	return w
}

// octets returns what a value in JSON is in the way's format.
func (w way) octets(t testing.TB, text string) string {
	t.Helper()
	f, err := codec.Lookup(w.format)
	must(t, err)
	data, err := codec.Encode(f, json.RawMessage(text))
	must(t, err)
	return string(data)
}

// exchanges reports whether the way has messages and answers and no connection.
func (w way) exchanges() bool { return w.connect == owtp.HTTP || w.connect == owtp.MQ }

// callsBack reports whether the listening side can call who has called it.
func (w way) callsBack() bool { return !w.exchanges() || w.connect == owtp.MQ && w.proved() }

// proved reports whether the peer has an ID in this way.
func (w way) proved() bool { return w.sign || w.suite != "" }

// allWays has each transport in every form.
func allWays() []way {
	var ways []way
	for _, c := range []string{owtp.HTTP, owtp.Websocket, owtp.Memory, owtp.MQ} {
		for _, sign := range []bool{false, true} {
			for _, suite := range []string{"", "aes", "sm4"} {
				ways = append(ways, way{connect: c, sign: sign, suite: suite})
			}
		}
	}
	return ways
}

// someWays has each transport open, signed, and signed and sealed, for what is
// about the life of connections and nodes.
func someWays() []way {
	var ways []way
	for _, c := range []string{owtp.HTTP, owtp.Websocket, owtp.Memory, owtp.MQ} {
		ways = append(ways, way{connect: c}, way{connect: c, sign: true}, way{connect: c, sign: true, suite: "sm4"})
	}
	return ways
}

// inBothFormats has each way in JSON and in Protobuf.
func inBothFormats(ways []way) []way {
	var both []way
	for _, w := range ways {
		w.format = ""
		both = append(both, w)
		w.format = codec.NameProtobuf
		both = append(both, w)
	}
	return both
}

// eachWay runs f for every way in both formats, at the same time as the others.
//
// Some tests have one format, and need no other: those of handshakes, hellos, junk
// and rates, where no data is decoded (TestLayersImportDownwards: neither
// transports nor internal/secure import codec), those whose data is refused before
// or behind formats, those of one format, and those of version 1, which has JSON
// only (TestV1KnowsJSONOnly).
func eachWay(t *testing.T, ways []way, f func(t *testing.T, w way)) {
	for _, w := range inBothFormats(ways) {
		t.Run(w.String(), func(t *testing.T) {
			t.Parallel()
			f(t, w)
		})
	}
}

// A stage is a server that listens and a client that does not know it yet.
type stage struct {
	way
	host, client *owtp.OWTPNode
	listen, dial owtp.ConnectConfig
}

var stages atomic.Int64

// freshName is an address in memory that nobody else uses.
func freshName(t testing.TB) string { return fmt.Sprintf("%s#%d", t.Name(), stages.Add(1)) }

type setup func(host, client *owtp.NodeConfig)

func hostLimits(l owtp.Limits) setup {
	return func(h, _ *owtp.NodeConfig) { h.Limits = l }
}

func newStage(t testing.TB, w way, setups ...setup) *stage {
	t.Helper()
	hc := owtp.NodeConfig{Cert: owtp.NewRandomCertificate()}
	cc := owtp.NodeConfig{Cert: owtp.NewRandomCertificate()}
	for _, f := range setups {
		f(&hc, &cc)
	}
	s := &stage{way: w, host: startNode(t, hc), client: startNode(t, cc)}
	s.listen = owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: w.connect, EnableSignature: w.sign, DataFormat: w.format}
	switch w.connect {
	case owtp.Memory:
		s.listen.Address = freshName(t)
	case owtp.MQ:
		s.listen.Address = freshBroker()
	}
	must(t, s.host.Listen(s.listen))
	s.listen.Address = s.host.ListenerAddr(w.connect)
	s.dial = s.listen
	if w.connect == owtp.MQ {
		s.dial.WriteQueueName = "owtp.node." + s.host.NodeID()
	}
	return s
}

// connect makes the server known to the client as "testhost".
func (s *stage) connect(t testing.TB) { s.connectNode(t, s.client) }

func (s *stage) connectNode(t testing.TB, n *owtp.OWTPNode) {
	t.Helper()
	must(t, n.Connect("testhost", s.dial))
	if s.suite != "" {
		must(t, n.KeyAgreement("testhost", s.suite))
	}
}

func startNode(t testing.TB, cfg owtp.NodeConfig) *owtp.OWTPNode {
	t.Helper()
	n, err := owtp.New(cfg)
	must(t, err)
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return n
}

func randomNode(t testing.TB) *owtp.OWTPNode {
	return startNode(t, owtp.NodeConfig{Cert: owtp.NewRandomCertificate()})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within fails the test unless c delivers or closes.
func within[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// never watches for a moment that f stays false.
func never(t testing.TB, what string, f func() bool) {
	t.Helper()
	for range 20 {
		if f() {
			t.Fatalf("%s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// wantStatus looks for one of ours in an error.
func wantStatus(t testing.TB, err error, status uint64) *owtp.Error {
	t.Helper()
	var e *owtp.Error
	if !errors.As(err, &e) || e.Status != status {
		t.Fatalf("error %v, want one with status %d", err, status)
	}
	return e
}

func wantErr(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that says %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q does not say %q", err, p)
		}
	}
}

// answer calls and returns the answer, which must come.
func answer(t testing.TB, n *owtp.OWTPNode, pid, method string, params any) *owtp.Response {
	t.Helper()
	resp, err := n.CallSync(pid, method, params)
	if err != nil {
		t.Fatalf("%s: %v", method, err)
	}
	return resp
}

// echo answers with what came, octet for octet.
func echo(ctx *owtp.Context) {
	ctx.Response(codec.Raw{Format: ctx.DataFormat(), Data: ctx.Data()}, owtp.StatusSuccess, "")
}

// sleeper is a handler that reports when it begins and ends, and why: nil when
// it was released, otherwise its context's error.
type sleeper struct {
	began    chan string
	ended    chan error
	release  chan struct{}
	once     sync.Once
	stubborn bool // does not heed its context, so that it cannot answer first
}

func newSleeper(t testing.TB) *sleeper {
	s := &sleeper{began: make(chan string, 4096), ended: make(chan error, 4096), release: make(chan struct{})}
	t.Cleanup(s.wake)
	return s
}

func (s *sleeper) wake() { s.once.Do(func() { close(s.release) }) }

func (s *sleeper) handle(ctx *owtp.Context) {
	s.began <- ctx.PID
	done := ctx.Context().Done()
	if s.stubborn {
		done = nil
	}
	select {
	case <-s.release:
		s.ended <- nil
	case <-done:
		s.ended <- ctx.Context().Err()
	}
	ctx.Response("slept", owtp.StatusSuccess, "")
}

// A logBook keeps what a node logs.
type logBook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBook) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func background(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}
