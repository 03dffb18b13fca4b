package main

import (
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]string{
		"http://127.0.0.1:9432":     "http://127.0.0.1:9432",
		"HTTP://LocalHost:09432/":   "http://localhost:9432",
		"https://node.example":      "https://node.example:443",
		"ws://node.example":         "ws://node.example:80",
		"wss://node.example":        "wss://node.example:443",
		"ws://[::1]:9433":           "ws://[::1]:9433",
		"http://:9432":              "http://localhost:9432",
		"http://xn--bcher-kva.ch:1": "http://xn--bcher-kva.ch:1",
	} {
		a, err := parseAddress(in)
		if err != nil || a.String() != want {
			t.Errorf("%q: %v, %v; want %s", in, a, err, want)
			continue
		}
		if again, err := parseAddress(a.String()); err != nil || again != a {
			t.Errorf("%s does not read as it is written: %v, %v", a, again, err)
		}
	}
	for in, want := range map[string]string{
		"127.0.0.1:9432":       "no scheme",
		"":                     "no scheme",
		"ftp://a:1":            "unknown scheme",
		"amqp://a:1":           "message queue",
		"nats://a:1":           "message queue",
		"http://a:b":           "cannot be read",
		"http://a:70000":       "1 to 65535",
		"http://a:0":           "1 to 65535",
		"http://a:":            "no port after",
		"http://":              "no host",
		"http://u:secret@a:1":  "user name",
		"http://a:1/path":      "after the port",
		"http://a:1?x=y":       "after the port",
		"http://a:1#x":         "after the port",
		"http://a\x1b[2J:1":    "cannot be read",
		"http://a b:1":         "cannot be read",
		"\x1b]0;owned\x07://a": "unknown scheme",
	} {
		a, err := parseAddress(in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v; want %q", in, a, err, want)
			continue
		}
		if strings.ContainsAny(err.Error(), "\x1b\x07") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error repeats what it should not: %q", in, err)
		}
	}
}
