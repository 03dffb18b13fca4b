package redis

import (
	"bytes"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/owtp-go/owtp/session"
)

// FuzzRecord: what decodes is what encode makes, and nothing panics.
func FuzzRecord(f *testing.F) {
	record, _ := encode([]byte("value"))
	empty, _ := encode(nil)
	f.Add(string(record))
	f.Add(string(empty))
	f.Add("")
	f.Add("\x01\x00\x00\x00\x00\x00\x00\x00\x00")
	f.Fuzz(func(t *testing.T, s string) {
		value, version, err := decode([]byte(s))
		if err != nil {
			if !errors.Is(err, session.ErrCorrupt) || version != 0 || value != nil {
				t.Fatalf("decode(%q): %q, %d, %v", s, value, version, err)
			}
			return
		}
		if got := append(header(version), value...); !bytes.Equal(got, []byte(s)) {
			t.Fatalf("decode(%q) and back: %q", s, got)
		}
	})
}

// FuzzReply: an answer that makes no sense is an error.
func FuzzReply(f *testing.F) {
	f.Add([]byte("-2 "))
	f.Add([]byte("-1 \x01record"))
	f.Add([]byte("3600000 \x01 with spaces"))
	f.Add([]byte("1"))
	f.Fuzz(func(t *testing.T, reply []byte) {
		left, record, err := parseReply(reply)
		if err == nil && (left < absent || len(record) >= len(reply)) || err != nil && record != nil {
			t.Fatalf("parseReply(%q) = %d, %q, %v", reply, left, record, err)
		}
	})
}

// FuzzURL: no input panics, and no error repeats a password.
func FuzzURL(f *testing.F) {
	for _, s := range []string{
		"redis://user:hunter2@host:6379/0", "rediss://:hunter2@host?db=3&prefix=a", "unix://u:hunter2@/run/redis.sock", "redis://a?addr=b:1&addr=c:2",
		"redis://s:hunter2@h?master_name=m&username=u&password=hunter2", "redis://:hunt/er2@h", "redis://:hunt#er2@h", "redis://:12?hunter2@h:1", "redis://:%zzhunter2@h",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		const secret = "hunter2"
		c, err := parse(s)
		if err != nil {
			if strings.Contains(err.Error(), secret) {
				t.Fatalf("the error for %q repeats it: %v", s, err)
			}
			return
		}
		if len(c.driver.Addrs) == 0 || c.driver.PoolSize < 1 || c.driver.ReadTimeout <= 0 {
			t.Fatalf("parse(%q) = %+v", s, c)
		}
		if u, err := url.Parse(s); err != nil || u.Scheme != "redis" && u.Scheme != "rediss" && u.Scheme != "unix" {
			t.Fatalf("parse(%q) is no error", s)
		}
	})
}
