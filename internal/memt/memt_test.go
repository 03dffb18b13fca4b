package memt_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/owtp-go/owtp/internal/memt"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

func TestPipe(t *testing.T) {
	a, b := memt.Pipe()
	defer a.Close("")
	defer b.Close("")
	data := []byte("hello")
	if err := a.Send(t.Context(), transport.Message{Form: transport.JSON, Data: data}); err != nil {
		t.Fatal(err)
	}
	data[0] = 'X'
	m, err := b.Recv(t.Context())
	if err != nil || string(m.Data) != "hello" || m.Form != transport.JSON {
		t.Errorf("got %q, %v: the two sides share memory", m.Data, err)
	}
}

func TestSendBlocksWhenNobodyReads(t *testing.T) {
	a, b := memt.Pipe()
	defer b.Close("")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	sent := 0
	for ; sent < 1000; sent++ {
		if err := a.Send(ctx, transport.Message{Form: transport.Binary, Data: []byte("x")}); err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			break
		}
	}
	if sent == 0 || sent == 1000 {
		t.Errorf("%d messages wait for a reader", sent)
	}
	_ = a.Close("done")
	for range sent {
		if _, err := b.Recv(t.Context()); err != nil {
			t.Fatalf("a message that waited is lost: %v", err)
		}
	}
	if _, err := b.Recv(t.Context()); err == nil || !strings.Contains(err.Error(), "done") {
		t.Errorf("got error %v, want the reason of the close", err)
	}
}

func TestNames(t *testing.T) {
	if _, err := memt.New().Listen(t.Context(), transporttest.Config(""), transporttest.Echo()); err == nil {
		t.Error("listens without a name")
	}
	l, err := memt.New().Listen(t.Context(), transporttest.Config("a secret name"), transporttest.Echo())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = memt.New().DialConn(t.Context(), transporttest.Config("nobody"))
	if !errors.Is(err, transport.ErrNotSent) || strings.Contains(err.Error(), "secret") {
		t.Errorf("got error %v", err)
	}
}

func TestMaxConns(t *testing.T) {
	cfg := transporttest.Config(t.Name())
	cfg.MaxConns = 1
	l, err := memt.New().Listen(t.Context(), cfg, transporttest.Echo())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	first, err := memt.New().DialConn(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.HandshakeTimeout = 20 * time.Millisecond
	if _, err := memt.New().DialConn(t.Context(), cfg); !errors.Is(err, transport.ErrNotSent) {
		t.Errorf("got error %v", err)
	}
	time.AfterFunc(10*time.Millisecond, func() { _ = first.Close("") })
	cfg.HandshakeTimeout = 5 * time.Second
	second, err := memt.New().DialConn(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	_ = second.Close("")
}

// TestSendGivesUp: who sends without a deadline is not held up by a peer that
// does not read.
func TestSendGivesUp(t *testing.T) {
	silent := transporttest.HandlerFuncs{Conn: func(ctx context.Context, _ transport.Conn) { <-ctx.Done() }}
	cfg := transporttest.Config(t.Name())
	l, err := memt.New().Listen(t.Context(), cfg, silent)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg.BodyTimeout = 50 * time.Millisecond
	c, err := memt.New().DialConn(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close("")
	for range 1000 {
		if err = c.Send(context.Background(), transport.Message{Form: transport.Binary, Data: []byte("x")}); err != nil {
			break
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.Is(err, transport.ErrNotSent) {
		t.Errorf("got error %v", err)
	}
}
