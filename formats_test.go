package owtp_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/codec"
	"github.com/owtp-go/owtp/internal/testpb"
	"github.com/owtp-go/owtp/internal/wire"
)

// Which format carries data, on the way there and back.

func rawOf(t testing.TB, format string, v any) codec.Raw {
	t.Helper()
	f, err := codec.Lookup(format)
	must(t, err)
	data, err := codec.Encode(f, v)
	must(t, err)
	return codec.Raw{Format: format, Data: data}
}

// One listener and one method serve both formats at once, in every mode and over
// every transport, and each caller gets its own.
func TestFormatsSideBySide(t *testing.T) {
	t.Parallel()
	for _, w := range someWays() {
		t.Run(w.String(), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, w)
			must(t, s.host.HandleFunc("sum", func(ctx *owtp.Context) {
				p := ctx.Params()
				ctx.Response(map[string]any{
					"sum": p.Get("a").Uint() + p.Get("b.0").Uint(), "format": ctx.DataFormat(), "big": uint64(math.MaxUint64),
				}, owtp.StatusSuccess, "")
			}))
			s.connect(t)
			inJSON := s.client
			s.dial.DataFormat = "protobuf"
			inProtobuf := randomNode(t)
			s.connectNode(t, inProtobuf)
			ask := func(n *owtp.OWTPNode, format, want string) {
				t.Helper()
				resp, err := n.CallContext(background(t), "testhost", "sum", map[string]any{"a": 40, "b": []int{2}}, &owtp.CallOptions{Format: format})
				must(t, err)
				if got := resp.JsonData(); got.Get("sum").Int() != 42 || got.Get("format").String() != want || got.Get("big").Uint() != math.MaxUint64 {
					t.Errorf("asked in %q of %s: %v", format, want, got)
				}
				raw, isRaw := resp.Result.(codec.Raw)
				text, isJSON := resp.Result.(json.RawMessage)
				if want == codec.NameJSON && (!isJSON || !json.Valid(text)) || want != codec.NameJSON && (!isRaw || raw.Format != want) {
					t.Errorf("asked in %s, answered with %T", want, resp.Result)
				}
			}
			ask(inJSON, "", "json")
			ask(inProtobuf, "", "protobuf")
			ask(inJSON, "protobuf", "protobuf")
			ask(inProtobuf, "json", "json")
			if w.callsBack() {
				must(t, inProtobuf.HandleFunc("sum", func(ctx *owtp.Context) { ctx.Response(ctx.DataFormat(), owtp.StatusSuccess, "") }))
				must(t, s.host.HandleFunc("back", func(ctx *owtp.Context) {
					resp, err := ctx.Node().CallContext(ctx.Context(), ctx.PID, "sum", nil, &owtp.CallOptions{Format: ctx.Params().String()})
					if err != nil {
						ctx.Response(nil, owtp.ErrCustomError, err.Error())
						return
					}
					ctx.Response(resp.Result, owtp.StatusSuccess, "")
				}))
				for asked, want := range map[string]string{"": "json", "protobuf": "protobuf"} {
					if got := answer(t, inProtobuf, "testhost", "back", asked); got.JsonData().String() != want {
						t.Errorf("called back in %q with %v", asked, got)
					}
				}
			}
		})
	}
}

// On a listener DataFormat is that of its calls back.
func TestFormatOfCallsBack(t *testing.T) {
	t.Parallel()
	for _, w := range []way{{connect: owtp.Websocket}, {connect: owtp.MQ, sign: true}} {
		host, client := randomNode(t), randomNode(t)
		listen := owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: w.connect, EnableSignature: w.sign, DataFormat: "protobuf"}
		if w.connect == owtp.MQ {
			listen.Address = freshBroker()
		}
		must(t, host.Listen(listen))
		must(t, host.HandleFunc("back", func(ctx *owtp.Context) {
			resp, err := ctx.Node().CallSync(ctx.PID, "format", nil)
			if err != nil {
				ctx.Response(nil, owtp.ErrCustomError, err.Error())
				return
			}
			ctx.Response(resp.Result, owtp.StatusSuccess, "")
		}))
		must(t, client.HandleFunc("format", func(ctx *owtp.Context) { ctx.Response(ctx.DataFormat(), owtp.StatusSuccess, "") }))
		dial := owtp.ConnectConfig{Address: host.ListenerAddr(w.connect), ConnectType: w.connect, EnableSignature: w.sign}
		if w.connect == owtp.MQ {
			dial.WriteQueueName = "owtp.node." + host.NodeID()
		}
		must(t, client.Connect("testhost", dial))
		if got := answer(t, client, "testhost", "back", nil); got.JsonData().String() != "protobuf" {
			t.Errorf("%v: called back with %v", w, got)
		}
	}
}

// twice writes a member of itself twice.
type twice struct{}

func (twice) MarshalJSON() ([]byte, error) { return []byte(`{"to":"a","to":"b"}`), nil }

// What a program makes that no receiver takes is told to who made it. It does not
// go out, where it would end the connection with all calls on it.
func TestFormatsJunkOfOnesOwn(t *testing.T) {
	t.Parallel()
	deep := json.RawMessage(strings.Repeat("[", 64) + strings.Repeat("]", 64))
	for _, w := range inBothFormats(someWays()) {
		t.Run(w.String(), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, w)
			var ran, lost atomic.Int64
			began, wake := make(chan struct{}), make(chan struct{})
			must(t, s.host.HandleFunc("junk", func(ctx *owtp.Context) {
				ran.Add(1)
				ctx.Response([]any{twice{}, deep}[ctx.Params().Int()], owtp.StatusSuccess, "")
			}))
			must(t, s.host.HandleFunc("wait", func(ctx *owtp.Context) {
				close(began)
				<-wake
				ctx.Response("waited", owtp.StatusSuccess, "")
			}))
			s.client.SetCloseHandler(func(*owtp.OWTPNode, owtp.PeerInfo) { lost.Add(1) })
			s.connect(t)
			waited := make(chan string, 1)
			go func() {
				resp, err := s.client.CallSync("testhost", "wait", nil)
				if err != nil {
					waited <- err.Error()
					return
				}
				waited <- resp.JsonData().String()
			}()
			within(t, began, "the call that waits")
			for i, junk := range []any{twice{}, deep} {
				_, err := s.client.CallSync("testhost", "junk", junk)
				if err == nil || ran.Load() != int64(i) {
					t.Errorf("asked with %T: %v; %d handlers have run, want %d", junk, err, ran.Load(), i)
				}
				resp, err := s.client.CallSync("testhost", "junk", i)
				must(t, err)
				if resp.Status != owtp.ErrInternalServerError {
					t.Errorf("answered with %T: status %d %s", junk, resp.Status, resp.Msg)
				}
			}
			close(wake)
			if got := within(t, waited, "the call that waited"); got != "waited" || lost.Load() != 0 {
				t.Errorf("the call beside them: %s; %d connections lost", got, lost.Load())
			}
		})
	}
}

func TestFormatsThatNobodyKnows(t *testing.T) {
	t.Parallel()
	s := newStage(t, way{connect: owtp.HTTP})
	must(t, s.host.HandleFunc("echo", echo))
	dial := s.dial
	dial.DataFormat = "cobol"
	wantErr(t, s.client.Connect("testhost", dial), "DataFormat", "cobol", "json", "protobuf")
	wantErr(t, s.host.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.HTTP, DataFormat: "cobol"}), "DataFormat", "cobol")
	s.connect(t)
	_, err := s.client.CallContext(background(t), "testhost", "echo", nil, &owtp.CallOptions{Format: "cobol"})
	wantStatus(t, err, owtp.ErrUnsupportedType)
	wantErr(t, err, "cobol", "json", "protobuf")
}

var formatNonces atomic.Uint64

// post sends one open request by hand, as any stranger can.
func post(t testing.TB, addr, method, format string, data []byte) (status uint64, msg string) {
	t.Helper()
	nonce := fmt.Appendf(nil, "%016d", formatNonces.Add(1))
	body := fmt.Sprintf(`{"v":2,"r":1,"m":%q,"n":%q,"f":%q,"d":%q}`, method, base64.StdEncoding.EncodeToString(nonce), format, base64.StdEncoding.EncodeToString(data))
	r, err := http.Post("http://"+addr, "application/owtp+json", strings.NewReader(body))
	must(t, err)
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	must(t, err)
	var p struct {
		U uint64 `json:"u,string"`
		G string `json:"g"`
	}
	if err := json.Unmarshal(text, &p); err != nil {
		t.Fatalf("answered with %d %.200q: %v", r.StatusCode, text, err)
	}
	return p.U, p.G
}

// What is not well formed reaches no handler, and its sender is told what is wrong
// with it. Which octets are not is the codec package's business.
func TestFormatsAttackRequests(t *testing.T) {
	t.Parallel()
	s := newStage(t, way{connect: owtp.HTTP})
	var ran, prepared atomic.Int64
	s.host.HandlePrepareFunc(func(*owtp.Context) { prepared.Add(1) })
	must(t, s.host.HandleFunc("echo", func(ctx *owtp.Context) {
		ran.Add(1)
		echo(ctx)
	}))
	deep := []byte{8, 0}
	for range 64 { // lists within lists, each one field longer
		deep = append(appendLength([]byte{0x0a}, len(deep)), deep...)
		deep = append(appendLength([]byte{0x42}, len(deep)), deep...)
	}
	twice := []byte{0x4a, 0x12, 0x0a, 7, 0x0a, 1, 'a', 0x12, 2, 0x10, 1, 0x0a, 7, 0x0a, 1, 'a', 0x12, 2, 0x10, 0}
	for name, c := range map[string]struct {
		format string
		data   []byte
		status uint64
		says   string
	}{
		"another format":  {"cobol", []byte{8, 0}, owtp.ErrUnsupportedType, "known are json, protobuf"},
		"cut off":         {"protobuf", []byte{0x32, 9, 'a'}, owtp.ErrBadRequest, "protobuf"},
		"JSON":            {"protobuf", []byte(`{"a":1}`), owtp.ErrBadRequest, "protobuf"},
		"nested too deep": {"protobuf", deep, owtp.ErrBadRequest, "63"},
		"one name twice":  {"protobuf", twice, owtp.ErrBadRequest, `"a"`},
		"no UTF-8":        {"protobuf", []byte{0x32, 1, 0xff}, owtp.ErrBadRequest, "UTF-8"},
		"infinity":        {"protobuf", []byte{0x29, 0, 0, 0, 0, 0, 0, 0xf0, 0x7f}, owtp.ErrBadRequest, "protobuf"},
	} {
		status, msg := post(t, s.listen.Address, "echo", c.format, c.data)
		if status != c.status || !strings.Contains(msg, c.says) {
			t.Errorf("%s: answered %d %q, want %d and %q", name, status, msg, c.status, c.says)
		}
	}
	if ran.Load() != 0 || prepared.Load() != 0 {
		t.Errorf("%d handlers ran, %d were prepared", ran.Load(), prepared.Load())
	}
	if status, msg := post(t, s.listen.Address, "echo", "protobuf", []byte{8, 0}); status != owtp.StatusSuccess || ran.Load() != 1 {
		t.Errorf("what is well formed is answered %d %q", status, msg)
	}
}

func appendLength(b []byte, n int) []byte {
	for ; n > 127; n >>= 7 {
		b = append(b, byte(n)|128)
	}
	return append(b, byte(n))
}

// An answer that has a format nobody asked for, or is not what it says, is none.
func TestFormatsAttackAnswers(t *testing.T) {
	t.Parallel()
	var answerWith atomic.Pointer[string]
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct{ M, N string }
		body, _ := io.ReadAll(r.Body)
		if i := bytes.IndexByte(body, '{'); i >= 0 && json.Unmarshal(body, &q) == nil {
			w.Header().Set("Content-Type", "application/owtp+json")
			fmt.Fprintf(w, `{"v":2,"r":2,"m":%q,"n":%q,"u":"200",%s}`, q.M, q.N, *answerWith.Load())
		}
	}))
	t.Cleanup(peer.Close)
	n := randomNode(t)
	must(t, n.Connect("peer", owtp.ConnectConfig{Address: peer.Listener.Addr().String(), ConnectType: owtp.HTTP}))
	with := func(text string) (*owtp.Response, error) {
		answerWith.Store(&text)
		return n.CallSync("peer", "m", nil)
	}
	for _, text := range []string{`"f":"protobuf","d":"CAA="`, `"f":"cobol","d":"CAA="`} {
		resp, err := with(text)
		if err == nil {
			t.Errorf("%s is taken for %v", text, resp)
			continue
		}
		if e := wantStatus(t, err, owtp.ErrResponseMethodDiffer); !e.MayHaveRun || e.Proved {
			t.Errorf("%s: %+v", text, e)
		}
	}
	resp, err := with(`"d":[1]`)
	if err != nil || resp.JsonData().Get("0").Int() != 1 {
		t.Errorf("the peer cannot answer at all: %v, %v", resp, err)
	}
}

// A message of a type that this program does not know is handed on as it is, and
// reads as nothing.
func TestFormatsUnknownMessages(t *testing.T) {
	t.Parallel()
	s := newStage(t, way{connect: owtp.Memory})
	must(t, s.host.HandleFunc("echo", echo))
	must(t, s.host.HandleFunc("read", func(ctx *owtp.Context) {
		var in map[string]any
		err := ctx.Decode(&in)
		ctx.Response(fmt.Sprint(ctx.Params().Raw, owtp.StatusOf(err)), owtp.StatusSuccess, "")
	}))
	s.connect(t)
	known := rawOf(t, "protobuf", &testpb.Order{Customer: "Ada"})
	unknown := codec.Raw{Format: "protobuf", Data: bytes.Replace(known.Data, []byte("owtp.test.Order"), []byte("owtp.test.Ordre"), 1)}
	opts := &owtp.CallOptions{Format: "protobuf"}
	resp, err := s.client.CallContext(background(t), "testhost", "echo", unknown, opts)
	must(t, err)
	if got, ok := resp.Result.(codec.Raw); !ok || !bytes.Equal(got.Data, unknown.Data) || resp.JsonData().Exists() {
		t.Errorf("came back as %v, read as %v", resp.Result, resp.JsonData())
	}
	resp, err = s.client.CallContext(background(t), "testhost", "read", unknown, opts)
	must(t, err)
	if got := resp.JsonData().String(); got != "400" {
		t.Errorf("read as %q", got)
	}
}

// A signature is over the packet and not over its envelope: somebody on the way
// who turns each into the other breaks nothing.
func TestFormatsSignaturesHoldInBothEnvelopes(t *testing.T) {
	t.Parallel()
	s := newStage(t, way{connect: owtp.HTTP, sign: true})
	must(t, s.host.HandleFunc("echo", echo))
	turn := func(contentType string, body []byte) (string, []byte) {
		if contentType == "application/owtp+json" {
			p, err := wire.ParseJSON(body)
			if err != nil {
				t.Error(err)
				return contentType, nil
			}
			return "application/owtp", p.AppendMessage(nil)
		}
		typ, rest, err := wire.ParseHeader(body)
		if err != nil || typ != wire.TypePackets {
			return contentType, body // a hello
		}
		packets, err := wire.ParseRecord(rest)
		if err != nil {
			t.Error(err)
			return contentType, nil
		}
		text, err := packets[0].AppendJSON(nil)
		if err != nil {
			t.Error(err)
		}
		return "application/owtp+json", text
	}
	var turned atomic.Int64
	between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		is, other := r.Header.Get("Content-Type"), ""
		if other, body = turn(is, body); other != is {
			turned.Add(1)
		}
		answer, err := http.Post("http://"+s.listen.Address, other, bytes.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		defer answer.Body.Close()
		body, _ = io.ReadAll(answer.Body)
		if got := answer.Header.Get("Content-Type"); got != other {
			t.Errorf("asked in %s, answered in %s", other, got)
		}
		if other != is {
			_, body = turn(other, body)
		}
		w.Header().Set("Content-Type", is)
		w.Write(body)
	}))
	t.Cleanup(between.Close)
	s.dial.Address = between.Listener.Addr().String()
	s.connect(t)
	for _, format := range formats {
		turned.Store(0)
		resp, err := s.client.CallContext(background(t), "testhost", "echo", map[string]any{"n": 7}, &owtp.CallOptions{Format: format})
		must(t, err)
		if got := resp.JsonData().Get("n").Int(); got != 7 || turned.Load() != 1 {
			t.Errorf("%s: %d came back, %d envelopes were turned", format, got, turned.Load())
		}
		e, err := owtp.VerifyEvidence(resp.Evidence())
		must(t, err)
		if e.Request.Format != format || e.Response.Format != format || !bytes.Equal(e.Response.Data, e.Request.Data) {
			t.Errorf("%s: evidence of %+v and %+v", format, e.Request, e.Response)
		}
	}
}
