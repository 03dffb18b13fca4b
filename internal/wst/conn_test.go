package wst_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/owtp-go/owtp/internal/wst"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

func listen(t *testing.T, h transport.Handler, change func(*transport.Config)) string {
	t.Helper()
	cfg := transporttest.Config("127.0.0.1:0")
	if change != nil {
		change(&cfg)
	}
	l, err := wst.New().Listen(t.Context(), cfg, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

func upgrade(change http.Header) http.Header {
	h := http.Header{
		"Connection":            {"Upgrade"},
		"Upgrade":               {"websocket"},
		"Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key":     {"dGhlIHNhbXBsZSBub25jZQ=="},
	}
	for k, v := range change {
		if v == nil {
			delete(h, k)
		} else {
			h[k] = v
		}
	}
	return h
}

func TestWhoMayComeIn(t *testing.T) {
	const page = "https://wallet.example"
	for _, c := range []struct {
		name   string
		method string
		header http.Header
		host   string
		want   int
	}{
		{"upgrade", "GET", nil, "", 101},
		{"no upgrade", "GET", http.Header{"Upgrade": nil, "Connection": nil}, "", 426},
		{"another upgrade", "GET", http.Header{"Upgrade": {"h2c"}}, "", 426},
		{"connection is not upgraded", "GET", http.Header{"Connection": nil}, "", 426},
		{"POST", "POST", nil, "", 405},
		{"old version", "GET", http.Header{"Sec-Websocket-Version": {"8"}}, "", 400},
		{"no key", "GET", http.Header{"Sec-Websocket-Key": nil}, "", 400},
		{"foreign Origin", "GET", http.Header{"Origin": {"https://evil.example"}}, "", 403},
		{"allowed Origin", "GET", http.Header{"Origin": {page}}, "", 101},
		{"Origin of the rebound Host", "GET", http.Header{"Origin": {"http://evil.example"}}, "evil.example", 403},
		{"Origin of this very Host", "GET", http.Header{"Origin": {"http://localhost:80"}}, "localhost:80", 403},
		{"rebound Host", "GET", nil, "evil.example", 403},
		{"allowed Host", "GET", nil, "node.example", 101},
		{"subprotocol", "GET", http.Header{"Sec-Websocket-Protocol": {"owtp2"}}, "", 101},
		{"another subprotocol", "GET", http.Header{"Sec-Websocket-Protocol": {"chat"}}, "", 101},
		{"compression offered", "GET", http.Header{"Sec-Websocket-Extensions": {"permessage-deflate"}}, "", 101},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := listen(t, transporttest.Echo(), func(cfg *transport.Config) {
				cfg.AllowedOrigins = []string{page}
				cfg.AllowedHosts = []string{"node.example"}
			})
			r, err := http.NewRequest(c.method, "http://"+addr+"/any/path", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header, r.Host = upgrade(c.header), c.host
			tr := &http.Transport{}
			defer tr.CloseIdleConnections()
			resp, err := tr.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != c.want {
				t.Fatalf("got status %d, want %d", resp.StatusCode, c.want)
			}
			if got := resp.Header.Get("Sec-WebSocket-Extensions"); got != "" {
				t.Errorf("the server agreed to the extension %q", got)
			}
			if got := resp.Header.Get("Sec-WebSocket-Protocol"); (got == "owtp2") != (c.name == "subprotocol") {
				t.Errorf("the server chose the subprotocol %q", got)
			}
		})
	}
}

func TestDialRefused(t *testing.T) {
	for status := range map[int]bool{302: true, 403: true, 503: true} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/" {
				t.Error("the redirect was followed")
			}
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "not now\nmore")
		}))
		defer s.Close()
		_, err := wst.New().DialConn(t.Context(), transporttest.Config(s.Listener.Addr().String()))
		var refusal *transport.Refusal
		if !errors.As(err, &refusal) || refusal.Status != status || refusal.Reason != "not now" || !errors.Is(err, transport.ErrNotSent) {
			t.Errorf("got error %v", err)
		}
	}
}

// TestDialSilence dials somebody who accepts and says nothing.
func TestDialSilence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer := transporttest.Config(l.Addr().String())
	peer.HandshakeTimeout = 50 * time.Millisecond
	_, err = wst.New().DialConn(t.Context(), peer)
	if !errors.Is(err, transport.ErrNotSent) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v", err)
	}
}

// rawClient upgrades by hand, to send what no library would.
func rawClient(t *testing.T, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("got %v, %v", resp, err)
	}
	return c, r
}

// frame makes a masked frame with a mask of zeros.
func frame(head byte, payload string) []byte {
	b := []byte{head}
	if len(payload) < 126 {
		b = append(b, 0x80|byte(len(payload)))
	} else {
		b = append(b, 0x80|127)
		b = binary.BigEndian.AppendUint64(b, uint64(len(payload)))
	}
	return append(append(b, 0, 0, 0, 0), payload...)
}

const (
	fin                  = 0x80
	continued, text, bin = 0, 1, 2
)

// TestOddFrames looks at what a receiver makes of frames, and at the code with
// which it closes.
func TestOddFrames(t *testing.T) {
	for _, c := range []struct {
		name   string
		frames []byte
		want   string // the message, or "" for none
		code   uint16 // of the close frame, or 0 where none is sent
	}{
		{"binary", frame(fin|bin, "hello"), "2hello", 0},
		{"text", frame(fin|text, "hello"), "1hello", 0},
		{"in pieces", append(append(frame(bin, "he"), frame(continued, "ll")...), frame(fin|continued, "o")...), "2hello", 0},
		{"half a frame, then silence", frame(fin|bin, "hello")[:8], "", 0},
		{"half a message, then silence", frame(bin, "hello"), "", 0},
		{"claims 2^62 bytes", []byte{fin | bin, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, "", 0},
		{"oversize", frame(fin|bin, strings.Repeat("x", 1001)), "", 1009},
		{"oversize in pieces", append(frame(text, strings.Repeat("x", 600)), frame(fin|continued, strings.Repeat("x", 600))...), "", 1009},
		{"compressed", frame(fin|0x40|bin, "hello"), "", 1002},
		{"unknown opcode", frame(fin|7, "hello"), "", 1002},
		{"continuation of nothing", frame(fin|continued, "hello"), "", 1002},
		{"not masked", []byte{fin | bin, 1, 'x'}, "", 0},
		{"close", frame(fin|8, "\x03\xe8bye"), "", 1000},
	} {
		t.Run(c.name, func(t *testing.T) {
			type result struct {
				m   transport.Message
				err error
			}
			results := make(chan result, 1)
			addr := listen(t, transporttest.HandlerFuncs{Conn: func(ctx context.Context, conn transport.Conn) {
				m, err := conn.Recv(context.Background())
				results <- result{m, err}
				_, _ = conn.Recv(ctx)
			}}, func(cfg *transport.Config) {
				cfg.MaxMessage = 1000
				cfg.BodyTimeout = 50 * time.Millisecond
			})
			conn, r := rawClient(t, addr)
			_, _ = conn.Write(c.frames)
			got := <-results
			if c.want != "" {
				form := transport.Binary
				if c.want[0] == '1' {
					form = transport.JSON
				}
				if got.err != nil || got.m.Form != form || string(got.m.Data) != c.want[1:] {
					t.Errorf("got %v %q, %v", got.m.Form, got.m.Data, got.err)
				}
				return
			}
			if !errors.Is(got.err, net.ErrClosed) {
				t.Errorf("got error %v", got.err)
			}
			answer, _ := io.ReadAll(r) // the server hangs up
			if code := closeCode(answer); code != c.code {
				t.Errorf("got close code %d (% x), want %d", code, answer, c.code)
			}
		})
	}
}

func closeCode(frames []byte) uint16 {
	if len(frames) < 4 || frames[0] != fin|8 {
		return 0
	}
	return binary.BigEndian.Uint16(frames[2:])
}

// TestSlowUpgrade sends half a header.
func TestSlowUpgrade(t *testing.T) {
	addr := listen(t, transporttest.Echo(), func(cfg *transport.Config) { cfg.HandshakeTimeout = 50 * time.Millisecond })
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: local")
	if _, err := io.ReadAll(c); err != nil {
		t.Errorf("the server did not hang up: %v", err)
	}
}

// TestQuietConnectionLives proves that the timeouts of the upgrade and of
// messages do not run on between messages.
func TestQuietConnectionLives(t *testing.T) {
	short := func(cfg *transport.Config) {
		cfg.HandshakeTimeout = 50 * time.Millisecond
		cfg.BodyTimeout = 50 * time.Millisecond
		cfg.IdleTimeout = 50 * time.Millisecond
	}
	peer := transporttest.Config(listen(t, transporttest.Echo(), short))
	short(&peer)
	peer.HandshakeTimeout = 5 * time.Second
	c, err := wst.New().DialConn(t.Context(), peer)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close("")
	for range 3 {
		if err := c.Send(t.Context(), transport.Message{Form: transport.JSON, Data: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
		if m, err := c.Recv(context.Background()); err != nil || m.Form != transport.JSON {
			t.Fatalf("got %v, %v", m, err)
		}
		time.Sleep(80 * time.Millisecond)
	}
}

// TestCloseIsQuick closes towards a peer that neither reads nor answers.
func TestCloseIsQuick(t *testing.T) {
	conns := make(chan transport.Conn)
	done := make(chan struct{})
	addr := listen(t, transporttest.HandlerFuncs{Conn: func(_ context.Context, c transport.Conn) {
		conns <- c
		<-done
	}}, nil)
	defer close(done)
	rawClient(t, addr)
	c := <-conns
	received := make(chan error, 1)
	go func() {
		_, err := c.Recv(context.Background())
		received <- err
	}()
	start := time.Now()
	_ = c.Close(strings.Repeat("long ", 100) + "\x00")
	if took := time.Since(start); took > time.Second {
		t.Errorf("Close took %v", took)
	}
	if err := <-received; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got error %v", err)
	}
}

// TestSendTimesOut sends to a peer that does not read, with a context that
// never ends.
func TestSendTimesOut(t *testing.T) {
	failed := make(chan error, 1)
	addr := listen(t, transporttest.HandlerFuncs{Conn: func(ctx context.Context, c transport.Conn) {
		for {
			if err := c.Send(context.Background(), transport.Message{Form: transport.Binary, Data: make([]byte, 64<<10)}); err != nil {
				failed <- err
				return
			}
		}
	}}, func(cfg *transport.Config) { cfg.BodyTimeout = 50 * time.Millisecond })
	rawClient(t, addr)
	select {
	case err := <-failed:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("got error %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Send blocks for ever")
	}
}

// TestCloseCodes looks at what a dialler makes of the codes of its peer.
func TestCloseCodes(t *testing.T) {
	for code, status := range map[websocket.StatusCode]int{
		websocket.StatusNormalClosure: 0,
		websocket.StatusGoingAway:     0,
		websocket.StatusMessageTooBig: 413,
		websocket.StatusTryAgainLater: 503,
		websocket.StatusInternalError: 500,
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ws, err := websocket.Accept(w, r, nil)
			if err == nil {
				_ = ws.Close(code, "because\nof this")
			}
		}))
		c, err := wst.New().DialConn(t.Context(), transporttest.Config(s.Listener.Addr().String()))
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Recv(t.Context())
		var refusal *transport.Refusal
		if !errors.Is(err, net.ErrClosed) || errors.As(err, &refusal) != (status != 0) {
			t.Errorf("code %d: got error %v", code, err)
		} else if refusal != nil && (refusal.Status != status || refusal.Reason != "because") {
			t.Errorf("code %d: got %v", code, refusal)
		}
		_ = c.Close("")
		s.Close()
	}
}

// TestMountedInAnotherServer uses NewHandler under a path of a mux.
func TestMountedInAnotherServer(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("/", wst.NewHandler(transporttest.Config(""), transporttest.Echo()))
	s := httptest.NewServer(mux)
	defer s.Close()
	c, err := wst.New().DialConn(t.Context(), transporttest.Config(s.Listener.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Send(t.Context(), transport.Message{Form: transport.Binary, Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if m, err := c.Recv(t.Context()); err != nil || string(m.Data) != "x" {
		t.Errorf("got %v, %v", m, err)
	}
	_ = c.Close("")
}

func BenchmarkRoundTrip(b *testing.B) {
	l, err := wst.New().Listen(b.Context(), transporttest.Config("127.0.0.1:0"), transporttest.Echo())
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	c, err := wst.New().DialConn(b.Context(), transporttest.Config(l.Addr().String()))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close("")
	ctx, m := context.Background(), transport.Message{Form: transport.Binary, Data: make([]byte, 1000)}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Send(ctx, m); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Recv(ctx); err != nil {
			b.Fatal(err)
		}
	}
}
