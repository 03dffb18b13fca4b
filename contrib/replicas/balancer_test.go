package replicas_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
)

// A balancer gives each request to the next replica, whoever sends it, and to
// the one after that if nobody listens there, as plain balancers do. It records
// what passes and can lose answers.
type balancer struct {
	addr   string
	client *http.Client

	mu      sync.Mutex
	to      []string
	next    int
	only    int // a replica, or -1
	seen    []message
	keeping bool
	lose    func(m message) bool // an answer, by its request
}

// A message is a request as it passed.
type message struct {
	contentType string
	body        []byte
	replica     int // that has answered it
}

func newBalancer(t testing.TB, to []string) *balancer {
	b := &balancer{to: to, only: -1, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	s := httptest.NewServer(b)
	b.addr = s.Listener.Addr().String()
	t.Cleanup(func() {
		s.Close()
		b.client.CloseIdleConnections()
	})
	return b
}

// one sends everything to one replica; -1 to each in turn.
func (b *balancer) one(i int) {
	b.mu.Lock()
	b.only = i
	b.mu.Unlock()
}

// keep has requests recorded from now on, or no more.
func (b *balancer) keep(on bool) {
	b.mu.Lock()
	b.keeping = on
	b.mu.Unlock()
}

func (b *balancer) recorded() []message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.seen)
}

func (b *balancer) losing(f func(m message) bool) {
	b.mu.Lock()
	b.lose = f
	b.mu.Unlock()
}

func (b *balancer) pick() (int, string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := b.next % len(b.to)
	b.next++
	if b.only >= 0 {
		i = b.only
	}
	return i, b.to[i]
}

func (b *balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	m := message{contentType: r.Header.Get("Content-Type"), body: body}
	for range len(b.to) {
		var addr string
		m.replica, addr = b.pick()
		resp, err := b.send(r, addr, m)
		if dial := new(net.OpError); errors.As(err, &dial) && dial.Op == "dial" {
			continue // nobody has got it
		}
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		b.answer(w, resp, m)
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
}

func (b *balancer) send(r *http.Request, addr string, m message) (*http.Response, error) {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, "http://"+addr+r.URL.Path, bytes.NewReader(m.body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", m.contentType)
	return b.client.Do(req)
}

func (b *balancer) answer(w http.ResponseWriter, resp *http.Response, m message) {
	defer resp.Body.Close()
	b.mu.Lock()
	if b.keeping {
		b.seen = append(b.seen, m)
	}
	lose := b.lose
	b.mu.Unlock()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || lose != nil && lose(m) {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	w.WriteHeader(resp.StatusCode)
	w.Write(answer)
}

// deliver sends a recorded request to one replica once more, as somebody who
// kept it would, and returns the answer.
func (b *balancer) deliver(t testing.TB, m message, replica int) []byte {
	t.Helper()
	resp, err := b.client.Post("http://"+b.to[replica]+"/", m.contentType, bytes.NewReader(m.body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}
