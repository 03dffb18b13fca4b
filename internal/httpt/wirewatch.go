package httpt

import (
	"crypto/tls"
	"net"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
)

// countedConn knows whether bytes were written since a request got it, and
// counts its end unless the peer has announced it.
type countedConn struct {
	net.Conn
	written   atomic.Int64
	announced atomic.Bool
	closing   sync.Once
	ended     *atomic.Uint64
}

// Close implements net.Conn.
func (c *countedConn) Close() error {
	c.closing.Do(func() {
		if !c.announced.Load() {
			c.ended.Add(1)
		}
	})
	return c.Conn.Close()
}

// Write implements net.Conn. It counts before it writes, and then takes back
// what did not go out: one who looks meanwhile errs on the safe side.
func (c *countedConn) Write(p []byte) (int, error) {
	c.written.Add(int64(len(p)))
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n - len(p)))
	return n, err
}

// wireWatch proves that a request never left: the common end of an idle
// connection that the peer has closed. Only HTTP/1 connections, which carry
// one request at a time, can prove it.
type wireWatch struct {
	mu     sync.Mutex
	conn   *countedConn
	before int64
}

func (w *wireWatch) gotConn(info httptrace.GotConnInfo) {
	w.mu.Lock()
	defer w.mu.Unlock()
	conn := info.Conn
	w.conn = nil
	if t, ok := conn.(*tls.Conn); ok {
		if t.ConnectionState().NegotiatedProtocol == "h2" {
			return
		}
		conn = t.NetConn()
	}
	if c, ok := conn.(*countedConn); ok {
		w.conn, w.before = c, c.written.Load()
	}
}

// lastExchange is told that the peer will end the connection in order.
func (w *wireWatch) lastExchange() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn != nil {
		w.conn.announced.Store(true)
	}
}

// untouched closes the connection first, so that its answer stays true.
func (w *wireWatch) untouched() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn == nil {
		return false
	}
	_ = w.conn.Conn.Close()
	return w.conn.written.Load() == w.before
}
