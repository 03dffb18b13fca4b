package httpt_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/owtp-go/owtp/internal/httpt"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// told answers with what it was told.
func told() transporttest.HandlerFuncs {
	return transporttest.HandlerFuncs{Exchange: func(_ context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
		if m.Form == transport.Legacy && len(m.Data) == 0 {
			return transport.Message{Form: transport.Text, Data: []byte("nothing\n")}, nil
		}
		return transport.Message{Form: m.Form, Data: append(m.Data, " from "+m.Announced...)}, nil
	}}
}

func legacy(cfg *transport.Config) { cfg.Legacy = true }

// TestLegacyComesIn tells by the content type, whose is version 1's only where
// the listener takes it.
func TestLegacyComesIn(t *testing.T) {
	on, off := listen(t, told(), legacy), listen(t, told(), nil)
	const plain, sent = "application/json", "application/json; charset=UTF-8"
	long := strings.Repeat("z", 200)
	for _, c := range []struct {
		name    string
		addr    string
		header  http.Header
		body    string
		want    int
		typ     string
		answers string
	}{
		{"switched off", off, http.Header{"Content-Type": {sent}}, "{}", 415, "", ""},
		{"with a key", on, http.Header{"Content-Type": {sent}, "A": {"key"}}, "{}", 200, plain, "{} from key"},
		{"without", on, http.Header{"Content-Type": {plain}}, "{}", 200, plain, "{} from "},
		{"two keys are none", on, http.Header{"Content-Type": {plain}, "A": {"k", "l"}}, "{}", 200, plain, "{} from k,l"},
		{"long key", on, http.Header{"Content-Type": {plain}, "A": {long}}, "{}", 200, plain, "{} from " + long[:128]},
		{"empty", on, http.Header{"Content-Type": {plain}}, "", 200, "text/plain; charset=utf-8", "nothing\n"},
		{"this version has no key", on, http.Header{"Content-Type": {httpt.TypeJSON}, "A": {"key"}}, "{}", 200, httpt.TypeJSON, "{} from "},
		{"this version is not empty", on, http.Header{"Content-Type": {httpt.TypeJSON}}, "", 400, "", ""},
		{"other charset", on, http.Header{"Content-Type": {plain + "; charset=utf-16"}}, "{}", 415, "", ""},
		{"text", on, http.Header{"Content-Type": {"text/plain"}}, "{}", 415, "", ""},
		{"no type", on, http.Header{}, "{}", 415, "", ""},
		{"page", on, http.Header{"Content-Type": {plain}, "Origin": {"https://evil.example"}}, "{}", 403, "", ""},
	} {
		resp, text := do(t, "POST", "http://"+c.addr+"/", c.header, "", c.body)
		if resp.StatusCode != c.want {
			t.Errorf("%s: status %d (%q), want %d", c.name, resp.StatusCode, text, c.want)
		}
		if resp.StatusCode == 200 && (text != c.answers || resp.Header.Get("Content-Type") != c.typ) {
			t.Errorf("%s: %q of type %q", c.name, text, resp.Header.Get("Content-Type"))
		}
		for name := range resp.Header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s: the answer has %s", c.name, name)
			}
		}
	}
}
