package amqpt

import (
	"bufio"
	"crypto/tls"
	"net"
	"sync"
	"time"
)

const (
	readSize = 32 << 10

	// roomSize is how much may wait to be written before publishers wait.
	// Each of them may add one message to that: they are not asked again while
	// they write.
	roomSize = 1 << 20

	// keepSize is the largest buffer that is kept for the next batch.
	keepSize = 256 << 10
)

// A socket is a broker's connection as the AMQP library sees it. The library
// flushes after each message, each from the goroutine that publishes it; here
// what comes together goes out together, in one system call, and Write never
// waits for the network. Who wants to add more than acknowledgements and
// heartbeats asks room first.
//
// It hides the socket's deadlines from the library, which would set one for
// each frame, and sets one for each read instead.
type socket struct {
	conn    net.Conn
	reader  *bufio.Reader
	silence time.Duration // longest between two reads; 0 while shaking hands

	mu      sync.Mutex
	pending []byte
	spare   []byte
	err     error         // after which nothing goes out
	emptied chan struct{} // closed when pending is taken; nil if nobody waits

	wake   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newSocket(conn net.Conn) *socket {
	s := &socket{conn: conn, wake: make(chan struct{}, 1), closed: make(chan struct{})}
	s.reader = bufio.NewReaderSize(timedReader{s}, readSize)
	return s
}

// timedReader notices a broker that has fallen silent.
type timedReader struct{ s *socket }

func (r timedReader) Read(p []byte) (int, error) {
	r.s.mu.Lock()
	silence := r.s.silence
	r.s.mu.Unlock()
	if silence > 0 {
		_ = r.s.conn.SetReadDeadline(time.Now().Add(silence))
	}
	return r.s.conn.Read(p)
}

// expectWithin sets the longest silence from now on.
func (s *socket) expectWithin(silence time.Duration) {
	s.mu.Lock()
	s.silence = silence
	s.mu.Unlock()
	_ = s.conn.SetDeadline(time.Time{})
	_ = s.conn.SetReadDeadline(time.Now().Add(silence)) // a read may be under way
}

// Read implements io.Reader.
func (s *socket) Read(p []byte) (int, error) { return s.reader.Read(p) }

// Write implements io.Writer. It keeps a copy of p and returns at once.
func (s *socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return 0, s.err
	}
	s.pending = append(s.pending, p...)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return len(p), nil
}

// room returns nil if there is room for a message, and else what is closed when
// there may be.
func (s *socket) room() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) < roomSize || s.err != nil {
		return nil
	}
	if s.emptied == nil {
		s.emptied = make(chan struct{})
	}
	return s.emptied
}

// run writes until the socket is closed. A write has no deadline: a broker
// short of memory stops reading for as long as it likes, and one that is dead is
// noticed by the reader.
func (s *socket) run() {
	for {
		select {
		case <-s.wake:
		case <-s.closed:
			return
		}
		batch := s.take()
		if _, err := s.conn.Write(batch); err != nil {
			s.fail(err)
			return
		}
		if cap(batch) <= keepSize {
			s.mu.Lock()
			s.spare = batch[:0]
			s.mu.Unlock()
		}
	}
}

func (s *socket) take() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch := s.pending
	s.pending, s.spare = s.spare, nil
	s.release()
	return batch
}

func (s *socket) release() {
	if s.emptied != nil {
		close(s.emptied)
		s.emptied = nil
	}
}

func (s *socket) fail(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.pending = nil
	s.release()
	s.mu.Unlock()
	_ = s.Close()
}

// Close implements io.Closer.
func (s *socket) Close() error {
	s.once.Do(func() {
		s.mu.Lock()
		if s.err == nil {
			s.err = net.ErrClosed
		}
		s.release()
		s.mu.Unlock()
		close(s.closed)
		raw := s.conn
		if t, ok := raw.(*tls.Conn); ok {
			raw = t.NetConn() // closing a tls.Conn may block while it says goodbye
		}
		_ = raw.Close()
	})
	return nil
}
