package memt

import (
	"context"
	"net"
	"runtime/debug"
	"sync"

	"github.com/owtp-go/owtp/transport"
)

// listener implements [transport.Listener].
type listener struct {
	cfg     transport.Config
	handler transport.Handler
	places  chan struct{} // nil: no bound
	ctx     context.Context
	cancel  context.CancelFunc

	mu      sync.Mutex // orders accept before or after the end
	closed  bool
	serving sync.WaitGroup
}

func newListener(cfg transport.Config, h transport.Handler) *listener {
	l := &listener{cfg: cfg, handler: h}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	if cfg.MaxConns > 0 {
		l.places = make(chan struct{}, cfg.MaxConns)
	}
	return l
}

// accept starts serving c, whose place was taken before.
func (l *listener) accept(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		l.leave()
		return false
	}
	l.serving.Add(1)
	go l.serve(c)
	return true
}

func (l *listener) leave() {
	if l.places != nil {
		<-l.places
	}
}

func (l *listener) serve(c *conn) {
	defer l.serving.Done()
	defer l.leave()
	defer c.Close("")
	defer context.AfterFunc(l.ctx, func() { _ = c.Close("") })()
	defer func() {
		if p := recover(); p != nil {
			l.cfg.Logger.Error("owtp: handler panicked", "remote", c.remote, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	l.handler.ServeConn(l.ctx, c)
}

func (l *listener) stopAccepting() {
	listening.remove(l.cfg.Address, l)
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
}

// Addr implements [transport.Listener].
func (l *listener) Addr() net.Addr { return addr(l.cfg.Address) }

// Shutdown implements [transport.Listener]. There are no exchanges to wait for.
func (l *listener) Shutdown(context.Context) error {
	l.stopAccepting()
	return nil
}

// Close implements [transport.Listener].
func (l *listener) Close() error {
	l.stopAccepting()
	l.cancel()
	l.serving.Wait()
	return nil
}

// addr is a name as a net.Addr.
type addr string

func (a addr) Network() string { return "mem" }
func (a addr) String() string  { return string(a) }
