package mysql_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"testing"

	driver "github.com/go-sql-driver/mysql"

	"github.com/owtp-go/owtp/contrib/internal/sqlstore/sqltest"
	"github.com/owtp-go/owtp/internal/servers"
)

// TestTLS uses a server that takes nothing but TLS.
func TestTLS(t *testing.T) {
	cert, key := sqltest.Certificate(t, "mysql")
	s := servers.NewMariaDB(t, "--ssl-cert="+cert, "--ssl-key="+key, "--require-secure-transport=ON")
	text, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	if err := driver.RegisterTLSConfig("owtp-test", &tls.Config{RootCAs: roots}); err != nil {
		t.Fatal(err)
	}
	defer driver.DeregisterTLSConfig("owtp-test")
	sqltest.Refused(t, "mysql", s.DSN, []string{s.Password}) // MariaDB says "Access denied"
	sqltest.Refused(t, "mysql", with(s.DSN, "tls=true"), []string{s.Password}, "certificate")
	sqltest.Semantics(t, open(t, with(s.DSN, "tls=owtp-test")))
}
