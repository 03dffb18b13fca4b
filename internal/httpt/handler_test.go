package httpt_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/owtp-go/owtp/internal/httpt"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// listen starts a listener whose configuration the test has changed.
func listen(t *testing.T, h transport.Handler, change func(*transport.Config)) string {
	t.Helper()
	cfg := transporttest.Config("127.0.0.1:0")
	if change != nil {
		change(&cfg)
	}
	l, err := httpt.New().Listen(t.Context(), cfg, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// counting echoes and counts how often it ran.
func counting() (transporttest.HandlerFuncs, *atomic.Int64) {
	n := new(atomic.Int64)
	return transporttest.HandlerFuncs{Exchange: func(_ context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
		n.Add(1)
		return m, nil
	}}, n
}

// do sends a request that net/http may find odd.
func do(t *testing.T, method, url string, header http.Header, host, body string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	r.Host = host
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

func TestWhoMayComeIn(t *testing.T) {
	const good, readable = httpt.TypeBinary, httpt.TypeJSON
	const page = "https://wallet.example"
	for _, c := range []struct {
		name   string
		method string
		header http.Header
		host   string
		body   string
		want   int
	}{
		{"binary", "POST", http.Header{"Content-Type": {good}}, "", "x", 200},
		{"json", "POST", http.Header{"Content-Type": {readable}}, "", "{}", 200},
		{"json with charset", "POST", http.Header{"Content-Type": {readable + "; charset=UTF-8"}}, "", "{}", 200},
		{"json in another charset", "POST", http.Header{"Content-Type": {readable + "; charset=utf-16"}}, "", "{}", 415},
		{"binary with parameter", "POST", http.Header{"Content-Type": {good + "; a=b"}}, "", "x", 415},
		{"no content type", "POST", http.Header{}, "", "x", 415},
		{"two content types", "POST", http.Header{"Content-Type": {good, readable}}, "", "x", 415},
		{"a form's content type", "POST", http.Header{"Content-Type": {"text/plain"}}, "", "x", 415},
		{"plain json", "POST", http.Header{"Content-Type": {"application/json"}}, "", "{}", 415},
		{"longer type", "POST", http.Header{"Content-Type": {good + "x"}}, "", "x", 415},
		{"broken type", "POST", http.Header{"Content-Type": {good + "; ;"}}, "", "x", 415},
		{"content encoding", "POST", http.Header{"Content-Type": {good}, "Content-Encoding": {"gzip"}}, "", "x", 415},
		{"GET", "GET", http.Header{}, "", "", 405},
		{"PUT", "PUT", http.Header{"Content-Type": {good}}, "", "x", 405},
		{"OPTIONS without Origin", "OPTIONS", http.Header{}, "", "", 405},
		{"empty body", "POST", http.Header{"Content-Type": {good}}, "", "", 400},
		{"foreign Origin", "POST", http.Header{"Content-Type": {good}, "Origin": {"https://evil.example"}}, "", "x", 403},
		{"null Origin", "POST", http.Header{"Content-Type": {good}, "Origin": {"null"}}, "", "x", 403},
		{"empty Origin", "POST", http.Header{"Content-Type": {good}, "Origin": {""}}, "", "x", 403},
		{"Origin by another scheme", "POST", http.Header{"Content-Type": {good}, "Origin": {"http://wallet.example"}}, "", "x", 403},
		{"Origin by another port", "POST", http.Header{"Content-Type": {good}, "Origin": {page + ":8443"}}, "", "x", 403},
		{"allowed and foreign Origin", "POST", http.Header{"Content-Type": {good}, "Origin": {page, "https://evil.example"}}, "", "x", 403},
		{"allowed Origin", "POST", http.Header{"Content-Type": {good}, "Origin": {page}}, "", "x", 200},
		{"preflight of a foreign page", "OPTIONS", http.Header{"Origin": {"https://evil.example"}}, "", "", 403},
		{"preflight of an allowed page", "OPTIONS", http.Header{"Origin": {page}, "Access-Control-Request-Method": {"POST"}}, "", "", 204},
		{"rebound Host", "POST", http.Header{"Content-Type": {good}}, "evil.example", "x", 403},
		{"rebound Host with port", "POST", http.Header{"Content-Type": {good}}, "evil.example:80", "x", 403},
		{"Host that begins like loopback", "POST", http.Header{"Content-Type": {good}}, "127.0.0.1.evil.example", "x", 403},
		{"Host that ends like loopback", "POST", http.Header{"Content-Type": {good}}, "evil.localhost", "x", 403},
		{"Host localhost", "POST", http.Header{"Content-Type": {good}}, "LocalHost:99", "x", 200},
		{"Host 127.8.8.8", "POST", http.Header{"Content-Type": {good}}, "127.8.8.8", "x", 200},
		{"Host ::1", "POST", http.Header{"Content-Type": {good}}, "[::1]:99", "x", 200},
		{"Host ::1 without port", "POST", http.Header{"Content-Type": {good}}, "[::1]", "x", 200},
		{"allowed Host", "POST", http.Header{"Content-Type": {good}}, "Node.example:1234", "x", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, ran := counting()
			addr := listen(t, h, func(cfg *transport.Config) {
				cfg.AllowedOrigins = []string{page}
				cfg.AllowedHosts = []string{"node.example"}
			})
			resp, text := do(t, c.method, "http://"+addr+"/any/path", c.header, c.host, c.body)
			if resp.StatusCode != c.want {
				t.Fatalf("got status %d (%q), want %d", resp.StatusCode, text, c.want)
			}
			if (ran.Load() == 1) != (c.want == 200) {
				t.Errorf("the handler ran %d times", ran.Load())
			}
			checkAnswer(t, c.header.Get("Origin") == page && c.want < 300, c.body, resp, text)
		})
	}
}

func checkAnswer(t *testing.T, cors bool, body string, resp *http.Response, text string) {
	t.Helper()
	for name := range resp.Header {
		if strings.HasPrefix(name, "Access-Control-") && !cors {
			t.Errorf("an answer that no page may read has %s", name)
		}
	}
	if cors && (resp.Header.Get("Access-Control-Allow-Origin") == "" || resp.Header.Get("Vary") != "Origin") {
		t.Error("an allowed page may not read the answer")
	}
	switch resp.StatusCode {
	case 204:
		if resp.Header.Get("Access-Control-Allow-Methods") != "POST" || resp.Header.Get("Access-Control-Allow-Headers") != "Content-Type" {
			t.Errorf("the preflight got %v", resp.Header)
		}
		return
	case 200:
		if text != body || resp.ContentLength != int64(len(body)) {
			t.Errorf("got %q with length %d", text, resp.ContentLength)
		}
	case 405:
		if resp.Header.Get("Allow") != "POST" {
			t.Errorf("Allow is %q", resp.Header.Get("Allow"))
		}
	default:
		if strings.Count(text, "\n") != 1 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
			t.Errorf("the refusal %q is not one line of text", text)
		}
	}
	if resp.Header.Get("X-Content-Type-Options") != "nosniff" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("unprotected answer: %v", resp.Header)
	}
}

// TestRefusedBeforeTheBody sends headers only: the refusal must not wait for
// a body that never comes.
// raw writes bytes and reads all that comes back until the peer hangs up.
// TestSlowHandler proves that the deadlines of a body do not run on while the
// handler works, on both versions of HTTP.
func TestForwardedFor(t *testing.T) {
	local := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}
	for _, c := range []struct {
		name    string
		proxies []netip.Prefix
		header  []string
		want    string // "" is the socket's
	}{
		{"nobody is trusted", nil, []string{"1.2.3.4"}, ""},
		{"another proxy is trusted", local[1:], []string{"1.2.3.4"}, ""},
		{"no header", local, nil, ""},
		{"one", local, []string{"1.2.3.4"}, "1.2.3.4:0"},
		{"invented ones to the left", local, []string{"6.6.6.6, 1.2.3.4"}, "1.2.3.4:0"},
		{"through two proxies", local, []string{"6.6.6.6, 1.2.3.4, 10.1.1.1"}, "1.2.3.4:0"},
		{"in two headers", local, []string{"6.6.6.6", "1.2.3.4,10.1.1.1"}, "1.2.3.4:0"},
		{"with port", local, []string{"1.2.3.4:99"}, "1.2.3.4:99"},
		{"IPv6", local, []string{"2001:db8::1"}, "[2001:db8::1]:0"},
		{"junk", local, []string{"1.2.3.4, junk"}, ""},
		{"junk behind a proxy", local, []string{"junk, 10.1.1.1"}, "10.1.1.1:0"},
		{"only proxies", local, []string{"10.2.2.2, 10.1.1.1"}, "10.2.2.2:0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got transport.Remote
			addr := listen(t, transporttest.HandlerFuncs{Exchange: func(_ context.Context, from transport.Remote, m transport.Message) (transport.Message, error) {
				got = from
				return m, nil
			}}, func(cfg *transport.Config) { cfg.TrustedProxies = c.proxies })
			header := http.Header{"Content-Type": {httpt.TypeBinary}}
			if c.header != nil {
				header["X-Forwarded-For"] = c.header
			}
			if resp, text := do(t, "POST", "http://"+addr, header, "", "x"); resp.StatusCode != 200 {
				t.Fatalf("got status %d: %s", resp.StatusCode, text)
			}
			if got.Addr != c.want && (c.want != "" || !strings.HasPrefix(got.Addr, "127.0.0.1:")) {
				t.Errorf("got %q, want %q", got.Addr, c.want)
			}
			if got.LocalAddr != addr {
				t.Errorf("got local address %q, want %q", got.LocalAddr, addr)
			}
		})
	}
}

// TestMountedInAnotherServer uses NewHandler under a path of a mux.
func TestMountedInAnotherServer(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("/owtp", httpt.NewHandler(transporttest.Config(""), transporttest.Echo()))
	s := httptest.NewServer(mux)
	defer s.Close()
	header := http.Header{"Content-Type": {httpt.TypeBinary}}
	if resp, text := do(t, "POST", s.URL+"/owtp", header, "", "hello"); resp.StatusCode != 200 || text != "hello" {
		t.Errorf("got status %d, %q", resp.StatusCode, text)
	}
	if resp, _ := do(t, "POST", s.URL+"/owtp", header, "evil.example", "hello"); resp.StatusCode != 403 {
		t.Errorf("a rebound Host got status %d", resp.StatusCode)
	}
}

func TestErrorsAreLoggedNotTold(t *testing.T) {
	var log bytes.Buffer
	h := httpt.NewHandler(func() transport.Config {
		cfg := transporttest.Config("")
		cfg.AllowedHosts = []string{"example.com"}
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		return cfg
	}(), transporttest.HandlerFuncs{Exchange: func(_ context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
		if string(m.Data) == "panic" {
			panic("secret panic")
		}
		return m, errors.New("secret error")
	}})
	for _, body := range []string{"panic", "error"} {
		log.Reset()
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		r.Header.Set("Content-Type", httpt.TypeBinary)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 500 || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s: got status %d, %q", body, w.Code, w.Body)
		}
		if !strings.Contains(log.String(), "secret "+body) {
			t.Errorf("%s: the log says %q", body, log.String())
		}
	}
}

// TestStatusOfRefusals keeps a handler from answering with what is no error.
func TestStatusOfRefusals(t *testing.T) {
	for status, want := range map[int]int{0: 400, 200: 400, 302: 400, 400: 400, 418: 418, 503: 503, 599: 599, 600: 400, -1: 400} {
		addr := listen(t, transporttest.HandlerFuncs{Exchange: func(context.Context, transport.Remote, transport.Message) (transport.Message, error) {
			return transport.Message{}, &transport.Refusal{Status: status, Reason: "one\r\ntwo"}
		}}, nil)
		resp, text := do(t, "POST", "http://"+addr, http.Header{"Content-Type": {httpt.TypeBinary}}, "", "x")
		if resp.StatusCode != want || text != "one\n" {
			t.Errorf("status %d: got %d, %q", status, resp.StatusCode, text)
		}
	}
}
