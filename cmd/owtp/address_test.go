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

		"amqp://a":                        "amqp://a:5672",
		"AMQPS://A/":                      "amqps://a:5671",
		"amqp://a:1/%2f":                  "amqp://a:1",
		"amqp://a:1/%2F#q":                "amqp://a:1#q",
		"amqp://a:1/prod#orders.v2":       "amqp://a:1/prod#orders.v2",
		"amqp://me@a:1/p%20q%2fr%40s#a:b": "amqp://a:1/p%20q%2Fr%40s#a:b",
		"nats://a":                        "nats://a:4222",
		"tls://A:0042/#q/r":               "tls://a:42#q/r",
		"nats://me@a:1?durable=true#q":    "nats://a:1#q",
		"nats://a%40b@c:1":                "nats://c:1",
	} {
		a, err := parseAddress(in)
		if err != nil || a.String() != want {
			t.Errorf("%q: %v, %v; want %s", in, a, err, want)
			continue
		}
		a.account, a.options = "", ""
		if again, err := parseAddress(a.String()); err != nil || again != a {
			t.Errorf("%s does not read as it is written: %v, %v", a, again, err)
		}
	}
	for in, want := range map[string]string{
		"127.0.0.1:9432":                         "no scheme",
		"":                                       "no scheme",
		"ftp://a:1":                              "unknown scheme",
		"amqp://u:secret@a:1":                    "a password in it",
		"nats://u:secret@a:1":                    "a password in it",
		"nats://u:@a:1":                          "a password in it",
		"nats://u:sec%ret@a:1":                   "cannot be read",
		"nats://u:1#secret@a:1":                  "an @ where none belongs",
		"nats://u:1/secret@a:1":                  "an @ where none belongs",
		"nats://u:1?secret@a:1":                  "an @ where none belongs",
		"amqp://u:s#secret@a:1":                  "cannot be read",
		"http://u:sec%ret@a:1":                   "cannot be read",
		"kafka://u:secret@a:1":                   "unknown scheme",
		"nats://@a:1":                            "without an account",
		"nats://a:1/path":                        "has a path",
		"nats://a:1?queue=x":                     "unknown option",
		"nats://a:1?durable=maybe":               "want true or false",
		"nats://a:1?durable=1&durable=1":         "twice",
		"nats://a:1?creds=":                      "without a file",
		"nats://a:1?%zz":                         "cannot be read",
		"nats://a:1#a b":                         "letters, digits",
		"nats://a:1#a%40b":                       "@",
		"amqp://a:1/b/c":                         "slash",
		"amqp://a:1/b?c=d":                       "options",
		"amqp://":                                "no host",
		"amqp://a:1#" + strings.Repeat("q", 250): "too long",
		"http://a:b":                             "cannot be read",
		"http://a:70000":                         "1 to 65535",
		"http://a:0":                             "1 to 65535",
		"http://a:":                              "no port after",
		"http://":                                "no host",
		"http://u:secret@a:1":                    "user name",
		"http://a:1/path":                        "after the port",
		"http://a:1?x=y":                         "after the port",
		"http://a:1#x":                           "after the port",
		"http://a\x1b[2J:1":                      "cannot be read",
		"http://a b:1":                           "cannot be read",
		"\x1b]0;owned\x07://a":                   "unknown scheme",
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
