package main

import "testing"

func TestExposed(t *testing.T) {
	for _, tc := range []struct {
		address string
		o       serveOptions
		want    bool
	}{
		{"127.0.0.1:9432", serveOptions{}, false},
		{"127.0.0.2:9432", serveOptions{}, false},
		{"[::1]:9432", serveOptions{}, false},
		{"[::]:9432", serveOptions{}, true},
		{"0.0.0.0:9432", serveOptions{}, true},
		{"192.0.2.1:9432", serveOptions{}, true},
		{"[::ffff:127.0.0.1]:9432", serveOptions{}, false},
		{"0.0.0.0:9432", serveOptions{sign: true}, false},
		{"0.0.0.0:9432", serveOptions{encrypt: true}, false},
		{"", serveOptions{}, true}, // not known to be harmless
	} {
		l := listening{Address: tc.address, Mode: tc.o.mode()}
		if got := l.exposed(); got != tc.want {
			t.Errorf("%q, %s: exposed is %v", tc.address, l.Mode, got)
		}
	}
}
