package redis_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/owtp-go/owtp/internal/servers"
)

// An authority signs certificates for one test.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.cert, a.key, a.file, _ = a.issue(t, "authority", &x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

func (a *authority) issue(t *testing.T, name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, string, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	signer, signerKey := a.cert, a.key
	if signer == nil {
		signer, signerKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, signer, &key.PublicKey, signerKey)
	must(t, err)
	parsed, err := x509.ParseCertificate(der)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	return parsed, key, a.write(t, name+".crt", "CERTIFICATE", der), a.write(t, name+".key", "PRIVATE KEY", private)
}

func (a *authority) write(t *testing.T, name, kind string, der []byte) string {
	t.Helper()
	file := filepath.Join(a.dir, name)
	must(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return file
}

// TestTLS: the server's certificate is verified, and ours is shown.
func TestTLS(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	_, _, cert, key := ca.issue(t, "server", &x509.Certificate{
		DNSNames: []string{"redis.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	_, _, ours, oursKey := ca.issue(t, "client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	port := freePort(t)
	s := servers.NewRedis(t, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", ca.file, "--tls-auth-clients", "yes")
	at := func(options url.Values) string {
		return "rediss://:" + s.Password + "@127.0.0.1:" + port + "/0?" + options.Encode()
	}
	with := func(pairs ...string) url.Values {
		v := url.Values{"ca_file": {ca.file}, "cert_file": {ours}, "key_file": {oursKey}}
		for i := 0; i < len(pairs); i += 2 {
			v.Del(pairs[i])
			if pairs[i+1] != "" {
				v.Set(pairs[i], pairs[i+1])
			}
		}
		return v
	}
	for name, options := range map[string]url.Values{"by address": with(), "by name": with("server_name", "redis.example")} {
		p := open(t, at(options))
		must(t, p.Put(t.Context(), "a", []byte("1"), time.Minute))
		if r, err := p.Get(t.Context(), "a"); err != nil || string(r.Value) != "1" {
			t.Errorf("%s: %q, %v", name, r.Value, err)
		}
	}
	for name, options := range map[string]url.Values{
		"another authority":     with("ca_file", stranger.file),
		"the system's":          with("ca_file", ""),
		"another name":          with("server_name", "evil.example"),
		"no certificate":        with("cert_file", "", "key_file", ""),
		"a certificate alone":   with("key_file", ""),
		"another's certificate": with("cert_file", cert),
		"no such file":          with("ca_file", ca.file+"x"),
		"a key for a root":      with("ca_file", oursKey),
	} {
		if _, err := tryOpen(t, at(options)); err == nil {
			t.Errorf("%s: the store opens", name)
		}
	}
	// Without TLS on our side, and without it on the server's.
	for _, u := range []string{"redis://:" + s.Password + "@127.0.0.1:" + port, "rediss://:" + s.Password + "@" + s.Addr + "/0?" + with().Encode()} {
		if _, err := tryOpen(t, u+"?dial_timeout=2s&read_timeout=2s"); err == nil {
			t.Error("one side without TLS: the store opens")
		}
	}
}
