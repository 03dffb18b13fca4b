package httpt_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/internal/httpt"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

func binary(s string) transport.Message {
	return transport.Message{Form: transport.Binary, Data: []byte(s)}
}

func dial(t *testing.T, peer transport.Config) transport.Exchanger {
	t.Helper()
	x, err := httpt.New().DialExchange(t.Context(), peer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Close() })
	return x
}

// fakePeer answers every connection with what the test says.
func fakePeer(t *testing.T, serve func(n int, c net.Conn, r *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	all.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			all.Go(func() {
				defer c.Close()
				serve(n, c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l.Addr().String()
}

// readRequest reads one whole request.
func readRequest(r *bufio.Reader) (string, error) {
	req, err := http.ReadRequest(r)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(req.Body)
	return string(body), err
}

const okHead = "HTTP/1.1 200 OK\r\nContent-Type: application/owtp\r\n"

func TestOddAnswers(t *testing.T) {
	for _, c := range []struct {
		name, answer string
		status       int // of the refusal, or 0 for another error
		reason       string
	}{
		{"redirect", "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", 307, "Temporary Redirect"},
		{"wrong type", "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi", 415, ""},
		{"no type", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 415, ""},
		{"claims too much", okHead + "Content-Length: 99999999999\r\n\r\nhi", 413, ""},
		{"first line only", "HTTP/1.1 503 Busy\r\nContent-Length: 14\r\n\r\nbusy\x1b[31m\nmore", 503, "busy[31m"},
		{"endless refusal", "HTTP/1.1 429 X\r\n\r\n" + strings.Repeat("x", 100_000), 429, strings.Repeat("x", 200)},
		{"endless header", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 100_000), 0, ""},
		{"broken off", okHead + "Content-Length: 10\r\n\r\nhalf", 0, ""},
		{"no HTTP", "SSH-2.0-OpenSSH\r\n", 0, ""},
		{"nothing", "", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := fakePeer(t, func(_ int, conn net.Conn, r *bufio.Reader) {
				if _, err := readRequest(r); err == nil {
					_, _ = io.WriteString(conn, c.answer)
				}
			})
			_, err := dial(t, transporttest.Config(addr)).Exchange(t.Context(), binary("x"))
			if err == nil || errors.Is(err, transport.ErrNotSent) {
				t.Fatalf("got error %v", err)
			}
			var refusal *transport.Refusal
			if errors.As(err, &refusal) != (c.status != 0) {
				t.Fatalf("got error %v", err)
			}
			if refusal != nil && (refusal.Status != c.status || c.reason != "" && refusal.Reason != c.reason) {
				t.Errorf("got %v", refusal)
			}
		})
	}
}

func TestChunkedAnswerOverTheLimit(t *testing.T) {
	addr := fakePeer(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if _, err := readRequest(r); err != nil {
			return
		}
		_, _ = io.WriteString(c, okHead+"Transfer-Encoding: chunked\r\n\r\n")
		for {
			if _, err := io.WriteString(c, "400\r\n"+strings.Repeat("x", 0x400)+"\r\n"); err != nil {
				return // the client has hung up
			}
		}
	})
	_, err := dial(t, transporttest.Config(addr)).Exchange(t.Context(), binary("x"))
	var refusal *transport.Refusal
	if !errors.As(err, &refusal) || refusal.Status != 413 {
		t.Errorf("got error %v", err)
	}
}

// TestNotResent closes a kept-alive connection in the two ways in which a
// server can: net/http would send a request again that may be sent twice.
func TestNotResent(t *testing.T) {
	t.Run("after it was read", func(t *testing.T) {
		var requests atomic.Int64
		addr := fakePeer(t, func(_ int, c net.Conn, r *bufio.Reader) {
			for n := 0; ; n++ {
				if _, err := readRequest(r); err != nil {
					return
				}
				requests.Add(1)
				if n == 1 {
					return // hang up on the second request
				}
				_, _ = io.WriteString(c, okHead+"Content-Length: 2\r\n\r\nok")
			}
		})
		x := dial(t, transporttest.Config(addr))
		if _, err := x.Exchange(t.Context(), binary("one")); err != nil {
			t.Fatal(err)
		}
		_, err := x.Exchange(t.Context(), binary("two"))
		if err == nil || errors.Is(err, transport.ErrNotSent) {
			t.Errorf("got error %v", err)
		}
		if n := requests.Load(); n != 2 {
			t.Errorf("the peer read %d requests, want 2", n)
		}
	})
	t.Run("while idle", func(t *testing.T) {
		var delivered sync.Map
		hungUp := make(chan struct{}, 100)
		addr := fakePeer(t, func(_ int, c net.Conn, r *bufio.Reader) {
			body, err := readRequest(r)
			if err != nil {
				return
			}
			if _, again := delivered.LoadOrStore(body, true); again {
				t.Errorf("%q was delivered twice", body)
			}
			_, _ = io.WriteString(c, okHead+"Content-Length: 2\r\n\r\nok")
			_ = c.Close() // without having said "Connection: close"
			hungUp <- struct{}{}
		})
		x := dial(t, transporttest.Config(addr))
		for i := range 50 {
			body := strings.Repeat("x", i+1)
			_, err := x.Exchange(t.Context(), binary(body))
			if _, arrived := delivered.Load(body); arrived && errors.Is(err, transport.ErrNotSent) {
				t.Errorf("%d: it arrived, and the error is %v", i, err)
			}
			if err == nil {
				<-hungUp
			}
		}
	})
}

// TestNotSentUntilWritten lets the context end while an exchange waits for the
// only connection.
func TestNotSentUntilWritten(t *testing.T) {
	proceed := make(chan struct{})
	addr := fakePeer(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if _, err := readRequest(r); err == nil {
			<-proceed
			_, _ = io.WriteString(c, okHead+"Content-Length: 2\r\n\r\nok")
		}
	})
	peer := transporttest.Config(addr)
	peer.MaxConnsPerPeer = 1
	x := dial(t, peer)
	first := make(chan error, 1)
	go func() {
		_, err := x.Exchange(t.Context(), binary("first"))
		first <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	time.Sleep(10 * time.Millisecond) // let the first take the connection
	if _, err := x.Exchange(ctx, binary("second")); !errors.Is(err, transport.ErrNotSent) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v", err)
	}
	close(proceed)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

// TestRefusalKeepsConnection makes sure that a handler's refusal, which a busy
// node gives often, does not cost a new connection each time.
func TestRefusalKeepsConnection(t *testing.T) {
	var mu sync.Mutex
	seen := make(map[string]bool)
	addr := listen(t, transporttest.HandlerFuncs{Exchange: func(_ context.Context, from transport.Remote, m transport.Message) (transport.Message, error) {
		mu.Lock()
		defer mu.Unlock()
		seen[from.Addr] = true
		return m, &transport.Refusal{Status: 429, Reason: "too many"}
	}}, nil)
	x := dial(t, transporttest.Config(addr))
	for range 5 {
		var refusal *transport.Refusal
		if _, err := x.Exchange(t.Context(), binary("x")); !errors.As(err, &refusal) || refusal.Status != 429 {
			t.Errorf("got error %v", err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 1 {
		t.Errorf("five refusals took %d connections", len(seen))
	}
}

func TestHTTP2IsUsed(t *testing.T) {
	server, client := transporttest.TLSConfigs(t)
	addr := listen(t, transporttest.Echo(), func(cfg *transport.Config) { cfg.TLS = server })
	probe := &http.Transport{TLSClientConfig: client, ForceAttemptHTTP2: true}
	defer probe.CloseIdleConnections()
	resp, err := probe.RoundTrip(func() *http.Request {
		r, _ := http.NewRequest("POST", "https://"+addr, strings.NewReader("x"))
		r.Header.Set("Content-Type", httpt.TypeBinary)
		return r
	}())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.ProtoMajor != 2 || resp.StatusCode != 200 {
		t.Errorf("the listener answers %s %s", resp.Proto, resp.Status)
	}

	var major atomic.Int64
	mux := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		major.Store(int64(r.ProtoMajor))
		httpt.NewHandler(transporttest.Config(""), transporttest.Echo()).ServeHTTP(w, r)
	})
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: mux, TLSConfig: server, Protocols: &protocols}
	served := make(chan error, 1)
	go func() { served <- s.ServeTLS(l, "", "") }()
	defer func() {
		_ = s.Close()
		<-served
	}()
	peer := transporttest.Config(l.Addr().String())
	peer.TLS = client
	if _, err := dial(t, peer).Exchange(t.Context(), binary("x")); err != nil {
		t.Fatal(err)
	}
	if major.Load() != 2 {
		t.Errorf("the exchanger speaks HTTP/%d", major.Load())
	}
}

func TestUntrustedCertificate(t *testing.T) {
	server, _ := transporttest.TLSConfigs(t)
	_, other := transporttest.TLSConfigs(t)
	addr := listen(t, transporttest.Echo(), func(cfg *transport.Config) { cfg.TLS = server })
	peer := transporttest.Config(addr)
	peer.TLS = other
	if _, err := dial(t, peer).Exchange(t.Context(), binary("x")); !errors.Is(err, transport.ErrNotSent) {
		t.Errorf("got error %v", err)
	}
}

func TestListenWithoutCertificate(t *testing.T) {
	_, client := transporttest.TLSConfigs(t)
	cfg := transporttest.Config("127.0.0.1:0")
	cfg.TLS = client
	if l, err := httpt.New().Listen(t.Context(), cfg, transporttest.Echo()); err == nil {
		_ = l.Close()
		t.Error("a TLS listener without a certificate")
	}
}

// TestMaxConns lets the second connection wait until the first is gone.
func TestMaxConns(t *testing.T) {
	addr := listen(t, transporttest.Echo(), func(cfg *transport.Config) { cfg.MaxConns = 1 })
	first := dial(t, transporttest.Config(addr))
	if _, err := first.Exchange(t.Context(), binary("x")); err != nil {
		t.Fatal(err)
	}
	second := dial(t, transporttest.Config(addr))
	done := make(chan error, 1)
	go func() {
		_, err := second.Exchange(context.Background(), binary("x"))
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("a second connection was served: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	_ = first.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func BenchmarkExchange(b *testing.B) {
	cfg := transporttest.Config("127.0.0.1:0")
	l, err := httpt.New().Listen(b.Context(), cfg, transporttest.Echo())
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	x, err := httpt.New().DialExchange(b.Context(), transporttest.Config(l.Addr().String()))
	if err != nil {
		b.Fatal(err)
	}
	defer x.Close()
	m := transport.Message{Form: transport.Binary, Data: make([]byte, 1000)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x.Exchange(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
}
