package httpt_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// A peer of version 1 says everything with status 200.
func TestLegacyAnswers(t *testing.T) {
	const json = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	for _, c := range []struct {
		name, answer string
		want         string
		status       int // of the refusal
		reason       string
	}{
		{"packet", json + "Content-Length: 7\r\n\r\n{\"r\":2}", `{"r":2}`, 0, ""},
		{"complaint", "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 14\r\n\r\nbody is empty\n", "", 400, "body is empty"},
		{"endless complaint", "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + strings.Repeat("x", 100_000), "", 400, strings.Repeat("x", 200)},
		{"nothing", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", 400, "an empty answer: the peer did not take it for a request"},
		{"nothing of the right type", json + "Content-Length: 0\r\n\r\n", "", 400, "an empty answer: the peer did not take it for a request"},
		{"version 2", "HTTP/1.1 200 OK\r\nContent-Type: application/owtp+json\r\nContent-Length: 2\r\n\r\nhi", "", 415, ""},
		{"page", "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi", "", 415, ""},
		{"refused", "HTTP/1.1 415 No\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nno.\n", "", 415, "no."},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var head string
			addr := fakePeer(t, func(_ int, conn net.Conn, r *bufio.Reader) {
				_, _ = r.Peek(1)
				all, _ := r.Peek(r.Buffered())
				head, _, _ = strings.Cut(string(all), "\r\n\r\n")
				if _, err := readRequest(r); err == nil {
					_, _ = io.WriteString(conn, c.answer)
				}
			})
			cfg := transporttest.Config(addr)
			cfg.LegacyKey = "4Gov"
			got, err := dial(t, cfg).Exchange(t.Context(), transport.Message{Form: transport.Legacy, Data: []byte(`{"r":1}`)})
			for _, line := range []string{"\r\nA: 4Gov", "\r\nContent-Type: application/json; charset=UTF-8", "\r\nContent-Length: 7"} {
				if !strings.Contains(head, line) {
					t.Errorf("no line %q in %q", line, head)
				}
			}
			if c.status == 0 {
				if err != nil || got.Form != transport.Legacy || string(got.Data) != c.want {
					t.Errorf("got %v %q, %v", got.Form, got.Data, err)
				}
				return
			}
			var refusal *transport.Refusal
			if !errors.As(err, &refusal) || refusal.Status != c.status || c.reason != "" && refusal.Reason != c.reason {
				t.Errorf("got %v", err)
			}
			if errors.Is(err, transport.ErrNotSent) {
				t.Error("said not to have been sent")
			}
		})
	}
}
