package postgres_test

import (
	"testing"

	"github.com/owtp-go/owtp/contrib/internal/sqlstore/sqltest"
	"github.com/owtp-go/owtp/internal/servers"
)

func TestTLS(t *testing.T) {
	cert, key := sqltest.Certificate(t, "postgres")
	other, _ := sqltest.Certificate(t, "postgres")
	s := servers.NewPostgres(t, "-c", "ssl=on", "-c", "ssl_cert_file="+cert, "-c", "ssl_key_file="+key)
	sqltest.Refused(t, "postgres", with(t, s.DSN, "sslmode", "verify-full", "sslrootcert", other), []string{s.Password}, "certificate")
	sqltest.Semantics(t, open(t, with(t, s.DSN, "sslmode", "verify-full", "sslrootcert", cert, "application_name", "over_tls")))
	var all, secured int
	err := database(t, s.DSN).QueryRow(t.Context(), "SELECT count(*), count(*) FILTER (WHERE ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"+
		" WHERE application_name = 'over_tls'").Scan(&all, &secured)
	if err != nil || all == 0 || secured != all {
		t.Errorf("%d of %d connections are over TLS, %v", secured, all, err)
	}
}
