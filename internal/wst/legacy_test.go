package wst_test

import (
	"context"
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

// Who dials in version 1 names its key in a header and no subprotocol, and asks
// for signs of life below the messages.
func TestLegacyDialAndPing(t *testing.T) {
	t.Parallel()
	headers := make(chan http.Header, 1)
	answering := make(chan bool, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		headers <- r.Header
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		if <-answering {
			_, _, _ = c.Read(r.Context()) // answers pings until the other side is gone
		}
		<-answering
	}))
	defer s.Close()
	cfg := transporttest.Config(strings.TrimPrefix(s.URL, "http://"))
	cfg.LegacyKey = "4Gov"
	for _, answers := range []bool{true, false} {
		c, err := wst.New().DialConn(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		h := <-headers
		if h.Get("A") != "4Gov" || h.Get("Sec-WebSocket-Protocol") != "" || h.Get("Sec-WebSocket-Extensions") != "" {
			t.Errorf("headers %v", h)
		}
		answering <- answers
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		go c.Recv(t.Context()) //nolint:errcheck // it ends with the connection
		if answers {
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), 5*time.Second)
		}
		err = c.(transport.Pinger).Ping(ctx)
		if (err == nil) != answers {
			t.Errorf("pongs %v: %v", answers, err)
		}
		cancel()
		_ = c.Close("done")
		answering <- false
	}
}
