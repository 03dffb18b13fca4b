package owtp_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/codec"
	"github.com/owtp-go/owtp/internal/wire"
)

const inPanic = "postgres://ada:hunter2@db"

// panicky is data whose methods panic, as a bug makes them.
type panicky struct{}

func (*panicky) UnmarshalJSON([]byte) error  { panic(inPanic) }
func (panicky) MarshalJSON() ([]byte, error) { panic(inPanic) }

// panickyFormat is a format with a bug: it cannot bear the octets "check".
type panickyFormat struct{ codec.Format }

func (panickyFormat) Name() string { return "zz-panics" }

func (panickyFormat) Check(data []byte) error {
	if string(data) == "check" {
		panic(inPanic)
	}
	return nil
}

func (f panickyFormat) Unmarshal([]byte, any) error { panic(inPanic) }

var registerPanicky = sync.OnceValue(func() error { return codec.Register(panickyFormat{codec.JSON()}) })

// A panic of the program's own code for data is answered with 500 and told to its
// log only.
func TestFormatsPanicsAreNotTold(t *testing.T) {
	t.Parallel()
	must(t, registerPanicky())
	var book logBook
	s := newStage(t, way{connect: owtp.HTTP}, func(h, _ *owtp.NodeConfig) { h.Logger = book.logger() })
	ran := func(context.Context, any) (any, error) { return "ran", nil }
	must(t, owtp.Handle(s.host, "in", func(context.Context, panicky) (any, error) { return "ran", nil }))
	must(t, owtp.Handle(s.host, "out", func(context.Context, any) (panicky, error) { return panicky{}, nil }))
	must(t, owtp.Handle(s.host, "any", ran))
	for _, c := range []struct{ method, format, data string }{
		{"in", "", "1"}, {"in", "protobuf", "\x10\x01"}, {"out", "", "1"}, {"out", "protobuf", "\x10\x01"},
		{"any", "zz-panics", "check"}, {"any", "zz-panics", "decode"},
	} {
		before := len(book.text())
		status, msg := post(t, s.listen.Address, c.method, c.format, []byte(c.data))
		if status != owtp.ErrInternalServerError || strings.Contains(msg, "hunter2") || strings.Contains(msg, "panic") {
			t.Errorf("%s in %s: answered %d %q", c.method, c.format, status, msg)
		}
		if log := book.text()[before:]; !strings.Contains(log, inPanic) || !strings.Contains(log, "attack_formats_test.go") {
			t.Errorf("%s in %s: the log does not say where: %s", c.method, c.format, log)
		}
	}
}

// An answer in JSON to what was asked in another format is none either, but for
// the null of a refusal.
func TestFormatsAttackAnswersInJSON(t *testing.T) {
	t.Parallel()
	var with atomic.Pointer[wire.Packet]
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, rest, err := wire.ParseHeader(body)
		if err != nil {
			t.Error(err)
			return
		}
		packets, err := wire.ParseRecord(rest)
		if err != nil || packets[0].Format != "protobuf" {
			t.Errorf("asked with %v, %v", packets, err)
			return
		}
		out := *with.Load()
		out.Kind, out.Method, out.Nonce = wire.Response, packets[0].Method, packets[0].Nonce
		w.Header().Set("Content-Type", "application/owtp")
		w.Write(out.AppendMessage(nil))
	}))
	t.Cleanup(peer.Close)
	n := randomNode(t)
	must(t, n.Connect("peer", owtp.ConnectConfig{Address: peer.Listener.Addr().String(), ConnectType: owtp.HTTP, DataFormat: "protobuf"}))
	for _, c := range []struct {
		status       uint64
		format, data string
		want         uint64
	}{
		{200, "", `{"amount":1}`, owtp.ErrResponseMethodDiffer},
		{600, "", `1`, owtp.ErrResponseMethodDiffer},
		{200, "", `null`, owtp.StatusSuccess},
		{404, "", `null`, owtp.ErrNotFoundMethod},
		{200, "protobuf", "\x08\x00", owtp.StatusSuccess},
	} {
		with.Store(&wire.Packet{Status: c.status, Format: c.format, Data: []byte(c.data)})
		_, err := owtp.Invoke[any](background(t), n, "peer", "m", nil)
		if got := owtp.StatusOf(err); got != c.want {
			t.Errorf("status %d in %q with %q gives %v, want status %d", c.status, c.format, c.data, err, c.want)
		}
	}
}

// One call key is one call in one format: what a format makes of the same octets
// is another call.
func TestFormatsOneCallKey(t *testing.T) {
	t.Parallel()
	for _, w := range []way{{connect: owtp.HTTP, sign: true}, {connect: owtp.Websocket, suite: "aes"}} {
		s := newStage(t, w)
		var ran atomic.Int64
		must(t, s.host.HandleFunc("pay", func(ctx *owtp.Context) {
			ran.Add(1)
			echo(ctx)
		}))
		s.connect(t)
		key := []byte("0123456789abcdef")
		for i, format := range []string{"json", "protobuf", "json"} {
			resp, err := s.client.CallContext(background(t), "testhost", "pay", 5, &owtp.CallOptions{Format: format, CallKey: key})
			must(t, err)
			if format == "json" && (!resp.OK() || resp.JsonData().Int() != 5) || format != "json" && resp.Status != owtp.ErrReplayAttack {
				t.Errorf("%v: attempt %d in %s: %v", w, i, format, resp)
			}
		}
		if ran.Load() != 1 {
			t.Errorf("%v: it ran %d times", w, ran.Load())
		}
	}
}
