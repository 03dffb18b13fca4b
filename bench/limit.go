package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
)

// The limit is what a program could do that did nothing but this: many callers
// on one TCP connection, frames with their length in front, sealed by AES-256-GCM
// with the frame's number as nonce, and one write for all that waits. It knows no
// identity, no handshake, no methods, no bounds, no deadlines and no errors, keeps
// no record and gives handlers no goroutine. The seals are real.
//
// A frame is its length (4 octets, of what follows), its number (8 octets), and
// the sealed octets with their tag. The low 16 bits of the number are the caller;
// an answer has the number of its request and a key of its own.

const (
	limitHeader = 12
	limitCaller = 16 // bits
	limitBuffer = 64 << 10
)

var errLimit = errors.New("limit: a frame does not open")

// A limitWriter collects frames; whoever finds nobody writing writes them all.
type limitWriter struct {
	conn net.Conn
	aead cipher.AEAD

	mu      sync.Mutex
	writing bool
	pending []byte
	spare   []byte
	nonce   [12]byte
}

func (w *limitWriter) append(number uint64, plain []byte) {
	binary.BigEndian.PutUint64(w.nonce[4:], number)
	b := binary.BigEndian.AppendUint32(w.pending, uint32(8+len(plain)+w.aead.Overhead()))
	b = binary.BigEndian.AppendUint64(b, number)
	w.pending = w.aead.Seal(b, w.nonce[:], plain, b[len(b)-8:])
}

// flush writes all that waits, and what comes to it meanwhile.
func (w *limitWriter) flush() error {
	w.mu.Lock()
	for len(w.pending) > 0 {
		out := w.pending
		w.pending, w.spare = w.spare[:0], nil
		w.mu.Unlock()
		_, err := w.conn.Write(out)
		w.mu.Lock()
		w.spare = out[:0]
		if err != nil {
			w.writing = false
			w.mu.Unlock()
			return err
		}
	}
	w.writing = false
	w.mu.Unlock()
	return nil
}

// send is safe for concurrent use.
func (w *limitWriter) send(number uint64, plain []byte) error {
	w.mu.Lock()
	w.append(number, plain)
	if w.writing {
		w.mu.Unlock()
		return nil
	}
	w.writing = true
	w.mu.Unlock()
	runtime.Gosched() // others may have something to add
	return w.flush()
}

// A limitReader takes frames out of a stream and opens them where they lie.
type limitReader struct {
	conn     net.Conn
	aead     cipher.AEAD
	buf      []byte
	from, to int
	nonce    [12]byte
}

// more reports whether a whole frame is there without reading.
func (r *limitReader) more() bool {
	return r.to-r.from >= 4 && r.to-r.from >= 4+int(binary.BigEndian.Uint32(r.buf[r.from:]))
}

// next returns a frame that is good until the following call.
func (r *limitReader) next() (number uint64, plain []byte, err error) {
	for !r.more() {
		need := limitBuffer
		if r.to-r.from >= 4 {
			need = max(need, 4+int(binary.BigEndian.Uint32(r.buf[r.from:])))
		}
		if len(r.buf)-r.from < need {
			buf := r.buf
			if len(buf) < need {
				buf = make([]byte, need)
			}
			r.to = copy(buf, r.buf[r.from:r.to])
			r.buf, r.from = buf, 0
		}
		n, err := r.conn.Read(r.buf[r.to:])
		if r.to += n; n == 0 {
			return 0, nil, err
		}
	}
	frame := r.buf[r.from+4 : r.from+4+int(binary.BigEndian.Uint32(r.buf[r.from:]))]
	r.from += 4 + len(frame)
	if len(frame) < limitHeader-4 {
		return 0, nil, errLimit
	}
	number = binary.BigEndian.Uint64(frame)
	binary.BigEndian.PutUint64(r.nonce[4:], number)
	if plain, err = r.aead.Open(frame[8:8], r.nonce[:], frame[8:], frame[:8]); err != nil {
		return 0, nil, errLimit
	}
	return number, plain, nil
}

// serveLimit echoes in the goroutine that reads, and writes when nothing more is
// there to be read.
func serveLimit(conn net.Conn, f *format, requests, answers cipher.AEAD, apart bool) error {
	r, w := limitReader{conn: conn, aead: requests}, limitWriter{conn: conn, aead: answers}
	var handlers sync.WaitGroup
	defer handlers.Wait()
	for {
		number, plain, err := r.next()
		if err != nil {
			return err
		}
		if apart {
			request := bytes.Clone(plain)
			handlers.Go(func() {
				if v, err := f.decode(request); err == nil {
					if out, err := f.encode(v); err == nil {
						_ = w.send(number, out) // it fails when the connection ends
					}
				}
			})
			continue
		}
		v, err := f.decode(plain)
		if err != nil {
			return err
		}
		out, err := f.encode(v)
		if err != nil {
			return err
		}
		w.append(number, out)
		if !r.more() || len(w.pending) >= limitBuffer {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
}

type limitAnswer struct {
	data   []byte
	opened chan error
}

// A limitClient has room for so many callers.
type limitClient struct {
	format  *format
	value   any
	writer  limitWriter
	answers []limitAnswer
	numbers []uint64
}

func (c *limitClient) call(_ context.Context, caller int) error {
	out, err := c.format.encode(c.value)
	if err != nil {
		return err
	}
	c.numbers[caller]++
	if err := c.writer.send(c.numbers[caller]<<limitCaller|uint64(caller), out); err != nil {
		return err
	}
	if err := <-c.answers[caller].opened; err != nil {
		return err
	}
	v, err := c.format.decode(c.answers[caller].data)
	if err == nil && !sameSize(v, c.value) {
		err = errAnswer
	}
	return err
}

func (c *limitClient) read(r *limitReader) {
	for {
		number, plain, err := r.next()
		if err != nil {
			for i := range c.answers {
				select {
				case c.answers[i].opened <- err:
				default: // it is told already
				}
			}
			return
		}
		a := &c.answers[number&(1<<limitCaller-1)]
		a.data = append(a.data[:0], plain...)
		a.opened <- nil
	}
}

// openLimit opens the limit; with apart, each request has a goroutine of its own,
// as it must where handlers may wait.
func openLimit(apart bool) func(context.Context, *env, job) (*line, error) {
	return func(_ context.Context, _ *env, j job) (*line, error) { return limitLine(j, apart) }
}

func limitLine(j job, apart bool) (*line, error) {
	conn, accepted, err := tcpPair()
	if err != nil {
		return nil, err
	}
	var keys [2]cipher.AEAD
	for i := range keys {
		if keys[i], err = newGCM(aes.NewCipher, 32); err != nil {
			return nil, err
		}
	}
	room := max(j.callers, offeredCallers)
	c := &limitClient{format: j.format, value: j.value, writer: limitWriter{conn: conn, aead: keys[0]}, answers: make([]limitAnswer, room), numbers: make([]uint64, room)}
	for i := range c.answers {
		c.answers[i].opened = make(chan error, 2)
	}
	var both sync.WaitGroup
	both.Go(func() { _ = serveLimit(accepted, j.format, keys[0], keys[1], apart) }) // it ends with the connection
	both.Go(func() { c.read(&limitReader{conn: conn, aead: keys[1]}) })
	return &line{c.call, func() {
		conn.Close()
		accepted.Close()
		both.Wait()
	}}, nil
}

func newGCM(block func(key []byte) (cipher.Block, error), size int) (cipher.AEAD, error) {
	key := make([]byte, size)
	if _, err := io.ReadFull(rand.Reader, key); err != nil {
		return nil, err
	}
	b, err := block(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

// tcpPair is both ends of a connection over loopback.
func tcpPair() (dialled, accepted net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if dialled, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	if accepted, err = l.Accept(); err != nil {
		dialled.Close()
		return nil, nil, err
	}
	return dialled, accepted, nil
}
