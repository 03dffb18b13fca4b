package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

// A tap is a wire with an eavesdropper: it passes bytes on and remembers those
// of the answers. (What a client sends over WebSocket is masked by that
// protocol and cannot be searched for a word.)
type tap struct {
	ln     net.Listener
	target string

	mu     sync.Mutex
	heards bytes.Buffer
	conns  []net.Conn
	closed bool
	done   sync.WaitGroup
}

func newTap(target string) (*tap, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &tap{ln: ln, target: target}
	t.done.Go(t.accept)
	return t, nil
}

func (t *tap) address() string { return t.ln.Addr().String() }

// heard reports whether a word has passed in the clear.
func (t *tap) heard(word string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Contains(t.heards.Bytes(), []byte(word))
}

func (t *tap) accept() {
	for {
		in, err := t.ln.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", t.target)
		if err != nil {
			in.Close()
			continue
		}
		if !t.keep(in, out) {
			return
		}
		t.done.Go(func() { pass(out, in) })
		t.done.Go(func() { pass(in, io.TeeReader(out, ear{t})) })
	}
}

// keep remembers connections for close, unless that has been.
func (t *tap) keep(conns ...net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		for _, c := range conns {
			c.Close()
		}
		return false
	}
	t.conns = append(t.conns, conns...)
	return true
}

func pass(to net.Conn, from io.Reader) {
	io.Copy(to, from)
	to.Close()
}

type ear struct{ *tap }

func (e ear) Write(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.heards.Write(b)
}

func (t *tap) close() {
	t.mu.Lock()
	t.closed = true
	for _, c := range t.conns {
		c.Close()
	}
	t.mu.Unlock()
	t.ln.Close()
	t.done.Wait()
}

// A tamperProxy is a wire whose attacker understands HTTP: it changes messages
// and records requests.
type tamperProxy struct {
	server *http.Server
	ln     net.Listener
	target *url.URL
	done   chan struct{}

	mu          sync.Mutex
	there, back bool // which way messages are changed
	touched     int
	recording   bool
	requests    []recordedRequest
}

type recordedRequest struct {
	header http.Header
	path   string
	body   []byte
}

func newTamperProxy(target string) (*tamperProxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &tamperProxy{ln: ln, target: &url.URL{Scheme: "http", Host: target}, done: make(chan struct{})}
	p.server = &http.Server{
		Handler: &httputil.ReverseProxy{
			Rewrite:        p.request,
			ModifyResponse: p.response,
			Transport:      &http.Transport{DisableKeepAlives: true},
			ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
				w.WriteHeader(http.StatusBadGateway)
			},
		},
		ReadHeaderTimeout: demoCallTime,
	}
	go func() {
		defer close(p.done)
		p.server.Serve(ln)
	}()
	return p, nil
}

func (p *tamperProxy) address() string { return p.ln.Addr().String() }

func (p *tamperProxy) close() {
	p.server.Close()
	<-p.done
}

// tamper changes messages from now on until stop, which says how many.
func (p *tamperProxy) tamper(there, back bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.there, p.back, p.touched = there, back, 0
}

func (p *tamperProxy) stop() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.there, p.back = false, false
	return p.touched
}

// record keeps requests from now on until recorded, which returns them.
func (p *tamperProxy) record() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recording, p.requests = true, nil
}

func (p *tamperProxy) recorded() []recordedRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recording = false
	return p.requests
}

func (p *tamperProxy) request(r *httputil.ProxyRequest) {
	r.SetURL(p.target)
	body, err := io.ReadAll(r.In.Body)
	if err != nil {
		body = nil
	}
	p.mu.Lock()
	if p.recording {
		p.requests = append(p.requests, recordedRequest{r.In.Header.Clone(), r.In.URL.Path, bytes.Clone(body)})
	}
	if p.there {
		p.flip(body)
	}
	p.mu.Unlock()
	r.Out.Body, r.Out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
}

func (p *tamperProxy) response(r *http.Response) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	p.mu.Lock()
	if p.back {
		p.flip(body)
	}
	p.mu.Unlock()
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return nil
}

// flip changes the lowest bit of the last byte: the least that can be changed.
func (p *tamperProxy) flip(body []byte) {
	if len(body) > 0 {
		body[len(body)-1] ^= 1
		p.touched++
	}
}

// send sends a recorded request to the server, as it was.
func (p *tamperProxy) send(ctx context.Context, r recordedRequest) error {
	ctx, cancel := context.WithTimeout(ctx, demoCallTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.target.String()+r.path, bytes.NewReader(r.body))
	if err != nil {
		return err
	}
	req.Header = r.header.Clone()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return nil
}
