package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"sync"
	"time"

	"github.com/owtp-go/owtp/internal/servers"
)

// An env is what subjects share: a certificate and brokers, each made when it is
// first needed.
type env struct {
	certificate func() (tlsPair, error)

	mu      sync.Mutex
	brokers map[string]*broker
}

type broker struct {
	*servers.Server
	stop func()
	err  error
}

func newEnv() *env {
	return &env{certificate: sync.OnceValues(newCertificate), brokers: make(map[string]*broker)}
}

// broker starts the broker of that name.
func (e *env) broker(name string) (*servers.Server, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.brokers[name]
	if b == nil {
		b = new(broker)
		b.Server, b.stop, b.err = servers.Start(name)
		e.brokers[name] = b
	}
	return b.Server, b.err
}

func (e *env) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, b := range e.brokers {
		if b.err == nil {
			b.stop()
		}
	}
	clear(e.brokers)
}

// newCertificate is for TLS 1.3 over loopback, with a P-256 key as most servers
// have.
func newCertificate() (tlsPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tlsPair{}, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return tlsPair{}, err
	}
	if t, err = x509.ParseCertificate(der); err != nil {
		return tlsPair{}, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(t)
	return tlsPair{
		server: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS13},
		client: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13},
	}, nil
}

type tlsPair struct{ server, client *tls.Config }
