package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
)

// A balancer gives each request to the next replica, and to the one after that
// if nobody listens there. It knows nothing of the protocol. It also plays
// the attacker, who records requests and loses answers.
type balancer struct {
	client http.Client

	mu   sync.Mutex
	to   []string
	next int
	last []byte // the request that passed last
	lose bool   // the next answer
}

func (b *balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	for range b.to {
		status, answer, err := b.forward(b.turn(), r.Header.Get("Content-Type"), body)
		if dial := new(net.OpError); errors.As(err, &dial) && dial.Op == "dial" {
			continue // nobody has got it
		}
		if err != nil {
			http.Error(w, "the replica has not answered", http.StatusBadGateway)
			return
		}
		if b.passed(body) {
			panic(http.ErrAbortHandler) // the connection breaks instead
		}
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		w.WriteHeader(status)
		w.Write(answer)
		return
	}
	http.Error(w, "no replica listens", http.StatusServiceUnavailable)
}

func (b *balancer) turn() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next++
	return b.to[b.next%len(b.to)]
}

func (b *balancer) passed(body []byte) (lose bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	lose, b.lose, b.last = b.lose, false, body
	return lose
}

func (b *balancer) loseNext() {
	b.mu.Lock()
	b.lose = true
	b.mu.Unlock()
}

func (b *balancer) recorded() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last
}

func (b *balancer) forward(addr, contentType string, body []byte) (status int, answer []byte, err error) {
	resp, err := b.client.Post("http://"+addr+"/", contentType, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}
