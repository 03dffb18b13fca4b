package httpt_test

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

func TestRefusedBeforeTheBody(t *testing.T) {
	for _, c := range []struct{ name, header, want string }{
		{"foreign Origin", "Content-Type: application/owtp\r\nOrigin: https://evil.example\r\nContent-Length: 10\r\n", "403"},
		{"wrong type", "Content-Type: text/plain\r\nContent-Length: 10\r\n", "415"},
		{"claimed too large", "Content-Type: application/owtp\r\nContent-Length: 99999999999\r\n", "413"},
		{"wrong type, chunked", "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n", "415"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, ran := counting()
			answer := raw(t, listen(t, h, nil), "POST / HTTP/1.1\r\nHost: localhost\r\n"+c.header+"\r\n")
			if !strings.HasPrefix(answer, "HTTP/1.1 "+c.want) || ran.Load() != 0 {
				t.Errorf("got %q, the handler ran %d times", answer, ran.Load())
			}
		})
	}
}

func raw(t *testing.T, addr, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil && len(answer) == 0 {
		t.Fatalf("no answer: %v", err)
	}
	return string(answer)
}

func TestSlowClients(t *testing.T) {
	const line = "POST / HTTP/1.1\r\nHost: localhost\r\n"
	for _, c := range []struct{ name, request, want string }{
		{"half a body", line + "Content-Type: application/owtp\r\nContent-Length: 10\r\n\r\nhalf", "HTTP/1.1 408"},
		{"half a chunk", line + "Content-Type: application/owtp\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhalf", "HTTP/1.1 408"},
		{"half a header", line + "Content-Ty", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, ran := counting()
			addr := listen(t, h, func(cfg *transport.Config) {
				cfg.BodyTimeout = 50 * time.Millisecond
				cfg.HandshakeTimeout = 50 * time.Millisecond
			})
			start := time.Now()
			c2, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c2.Close()
			_ = c2.SetDeadline(time.Now().Add(5 * time.Second))
			_, _ = io.WriteString(c2, c.request)
			answer, err := io.ReadAll(c2)
			if err != nil {
				t.Fatalf("the server did not hang up: %v", err)
			}
			if !strings.HasPrefix(string(answer), c.want) || ran.Load() != 0 {
				t.Errorf("got %q, the handler ran %d times", answer, ran.Load())
			}
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("the server took %v", took)
			}
		})
	}
}

func TestSlowHandler(t *testing.T) {
	server, client := transporttest.TLSConfigs(t)
	for _, secure := range []bool{false, true} {
		h := transporttest.HandlerFuncs{Exchange: func(ctx context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				t.Error("the context ended while the client waited")
			}
			return m, nil
		}}
		addr := listen(t, h, func(cfg *transport.Config) {
			cfg.BodyTimeout = 30 * time.Millisecond
			if secure {
				cfg.TLS = server
			}
		})
		peer := transporttest.Config(addr)
		if secure {
			peer.TLS = client
		}
		x := dial(t, peer)
		for range 2 {
			if _, err := x.Exchange(t.Context(), binary("x")); err != nil {
				t.Errorf("TLS %v: %v", secure, err)
			}
		}
	}
}

func TestChunkedBodyOverTheLimit(t *testing.T) {
	h, ran := counting()
	addr := listen(t, h, func(cfg *transport.Config) { cfg.MaxMessage = 1000 })
	answer := raw(t, addr, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/owtp\r\nTransfer-Encoding: chunked\r\n\r\n"+
		"3e9\r\n"+strings.Repeat("x", 1001)+"\r\n0\r\n\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 413") || ran.Load() != 0 {
		t.Errorf("got %q, the handler ran %d times", answer, ran.Load())
	}
}

func TestLargeHeader(t *testing.T) {
	h, ran := counting()
	addr := listen(t, h, func(cfg *transport.Config) { cfg.MaxHeader = 1000 })
	answer := raw(t, addr, "POST / HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("x", 8000)+"\r\n\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 431") || ran.Load() != 0 {
		t.Errorf("got %q, the handler ran %d times", answer, ran.Load())
	}
}
