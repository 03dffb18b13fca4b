package natskv

import (
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	o, err := parse("nats://us%40er:p%2Fw@h1:1?bucket=b-1_x&addr=h2&addr=[::1]:3&replicas=3&max_records=5&max_bytes=7&timeout=1s&inbox=a.b&creds=/c")
	if err != nil {
		t.Fatal(err)
	}
	if o.user != "us@er" || o.password != "p/w" || o.host != "h1:1" || strings.Join(o.servers, " ") != "nats://h1:1 nats://h2:4222 nats://[::1]:3" ||
		o.bucket != "b-1_x" || o.replicas != 3 || o.maxRecords != 5 || o.maxBytes != 7 || o.timeout != time.Second || o.inbox != "a.b" || o.credentials != "/c" || o.tls != nil {
		t.Errorf("got %+v", o)
	}
	if o, err = parse("tls://h"); err != nil || o.tls == nil || o.tls.ServerName != "h" || o.bucket != "owtp" || o.replicas != 1 {
		t.Errorf("got %+v, %v", o, err)
	}
	for _, c := range []struct{ url, want string }{
		{"", "nats://user"}, {"redis://h", "nats://user"}, {"nats://", "nats://user"}, {"nats://h/db", "nats://user"}, {"nats://u:s3cret@h:\x7f", "nats://user"},
		{"nats://u:s3cret@h#x", "nats://user"}, {"nats://h?%zz", "nats://user"},
		{"nats://u:s3cret@h?bucket=a.b", "bucket"}, {"nats://h?bucket=", "bucket"}, {"nats://h?inbox=>", "inbox"}, {"nats://h?inbox=a..b", "inbox"},
		{"nats://h?replicas=0", "replicas"}, {"nats://h?replicas=9", "replicas"}, {"nats://h?max_records=x", "max_records"}, {"nats://h?max_bytes=-1", "max_bytes"},
		{"nats://h?timeout=0s", "timeout"}, {"nats://h?timeout=soon", "timeout"}, {"nats://h?bukcet=x", "unknown parameter"}, {"nats://h?bucket=a&bucket=b", "twice"},
		{"nats://h?addr=u:s3cret@h2", "addr"}, {"nats://h?addr=", "addr"}, {"nats://h?addr=h/x", "addr"},
		{"nats://h?ca_file=/x", "tls://"}, {"tls://h?ca_file=/does/not/exist", "/does/not/exist"}, {"tls://h?cert_file=/does/not/exist", "cert_file"},
		{"nats://h?" + strings.Repeat("addr=x&", 200), "further servers"}, {strings.Repeat("x", maxURL+1), "bytes"},
	} {
		if o, err := parse(c.url); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%.60q: got %+v, %v; want an error with %q", c.url, o, err, c.want)
		}
	}
}

// FuzzParse: no URL makes it panic, and no error repeats a password.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"nats://u:pass1word@h:1?bucket=b&addr=h2&timeout=1s", "tls://h?ca_file=x&server_name=y", "nats://[::1]:4222/", "nats://u:pass1word@h?inbox=a.b&replicas=3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		o, err := parse(text)
		if err == nil && (o.bucket == "" || len(o.servers) == 0 || strings.ContainsAny(o.subjects()+o.inbox, " *>\r\n")) {
			t.Errorf("%q is taken as %+v", text, o)
		}
		if err != nil && strings.Contains(text, ":pass1word@") && strings.Contains(err.Error(), "pass1word") {
			t.Errorf("%q: the error repeats the password: %v", text, err)
		}
	})
}
