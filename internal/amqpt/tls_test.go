package amqpt_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// TestTLS runs the suite over TLS, with a broker whose certificate only the
// configuration trusts.
func TestTLS(t *testing.T) {
	server, client := transporttest.TLSConfigs(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	cert, key := certificateFiles(t, server)
	s := servers.NewRabbitMQ(t, "listeners.ssl.1 = "+l.Addr().String(),
		"ssl_options.cacertfile = "+cert, "ssl_options.certfile = "+cert, "ssl_options.keyfile = "+key)
	if s.Dir == "" {
		t.Skip("the broker is not started here, so that it cannot be given a certificate")
	}
	address := "amqps://" + l.Addr().String()
	conformance(t, s, transporttest.Options{ServerTLS: client, ClientTLS: client}, address)

	t.Run("unknown certificate", func(t *testing.T) {
		cfg := config(s, "")
		cfg.Address = address
		refused(t, cfg, nil, "TLS with the broker", "certificate")
	})
	t.Run("no TLS to a port with TLS", func(t *testing.T) {
		cfg := config(s, "")
		cfg.Address = strings.Replace(address, "amqps", "amqp", 1)
		refused(t, cfg, nil, "does not speak AMQP without TLS", "amqps://")
	})
}

// certificateFiles writes a certificate where the broker's account can read it.
func certificateFiles(t *testing.T, c *tls.Config) (cert, key string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "owtp-tls-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	return write("cert.pem", "CERTIFICATE", c.Certificates[0].Certificate[0]), write("key.pem", "PRIVATE KEY", der)
}
