package natslink_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/owtp-go/owtp/contrib/internal/natslink"
	"github.com/owtp-go/owtp/transport/transporttest"
)

func TestMain(m *testing.M) { os.Exit(transporttest.RunMain(m)) }

// sockets are the two ends of a connection; the first is a pipe's.
func sockets(t *testing.T, timeout time.Duration) (*natslink.Pipe, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := natslink.NewDialer(t.Context(), timeout)
	if _, err := d.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	p := d.Last()
	t.Cleanup(func() { far.Close(); p.Close(); <-p.Done() })
	return p, far
}

// TestWriteNeverWaits fills a socket that nobody reads.
func TestWriteNeverWaits(t *testing.T) {
	p, far := sockets(t, time.Hour)
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	written := 0
	for ; p.HasRoom() || written < 32<<20; written += len(chunk) {
		if n, err := p.Write(chunk); n != len(chunk) || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := p.Room(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Room of a full pipe: %v", err)
	}
	room := make(chan error, 1)
	go func() { room <- p.Room(t.Context()) }()
	if n, err := io.CopyN(io.Discard, far, int64(written)); err != nil {
		t.Fatalf("read %d of %d, %v", n, written, err)
	}
	if err := <-room; err != nil || !p.HasRoom() {
		t.Errorf("Room of a pipe that was read: %v", err)
	}
}

// TestCloseWritesTheRest: what was written before Close arrives.
func TestCloseWritesTheRest(t *testing.T) {
	p, far := sockets(t, time.Hour)
	want := bytes.Repeat([]byte("0123456789"), 10_000)
	if _, err := p.Write(want); err != nil {
		t.Fatal(err)
	}
	p.Close()
	got, err := io.ReadAll(far)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d of %d octets, %v", len(got), len(want), err)
	}
	if _, err := p.Write(want); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
}

// TestStalled: who does not read is given up, after the time for a write, or soon
// after Close.
func TestStalled(t *testing.T) {
	for _, close := range []bool{false, true} {
		timeout := 100 * time.Millisecond
		if close {
			timeout = time.Hour
		}
		p, _ := sockets(t, timeout)
		if _, err := p.Write(make([]byte, 64<<20)); err != nil {
			t.Fatal(err)
		}
		if close {
			p.Close()
		}
		select {
		case <-p.Done():
		case <-time.After(20 * time.Second):
			t.Fatal("the pipe waits for ever")
		}
		if err := p.Room(t.Context()); err != nil {
			t.Errorf("Room of a broken pipe: %v", err)
		}
		if _, err := p.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write to a broken pipe: %v", err)
		}
	}
}
