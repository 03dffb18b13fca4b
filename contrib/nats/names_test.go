package nats

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/owtp-go/owtp/transport"
)

func TestReply(t *testing.T) {
	queue := transport.ReplyQueuePrefix + "node.abc"
	for _, c := range []struct {
		expires, most, want time.Duration
	}{
		{0, time.Hour, time.Hour}, {1, time.Hour, time.Second}, {time.Second, time.Hour, time.Second}, {1500 * time.Millisecond, time.Hour, 2 * time.Second},
		{2 * time.Hour, time.Hour, time.Hour}, {math.MaxInt64, time.Hour, time.Hour}, {math.MaxInt64, math.MaxInt64, math.MaxInt64 / time.Second * time.Second},
	} {
		subject, token := newReply(queue, c.expires)
		got, mark, ok := splitReply(subject)
		if !ok || got != queue || !strings.HasPrefix(mark, token) || tokenOf(queue+"."+mark, queue) != token {
			t.Errorf("%v: %s is taken for %q, %q, %v", c.expires, subject, got, mark, ok)
		}
		if d := patience(mark, c.most); d != c.want && c.expires != math.MaxInt64 {
			t.Errorf("%v: it waits for %v, want %v", c.expires, d, c.want)
		}
	}
	a, _ := newReply(queue, 0)
	if b, _ := newReply(queue, 0); a == b {
		t.Error("two requests have one token")
	}
}

func TestStreamName(t *testing.T) {
	for queue, want := range map[string]string{
		"owtp.node.Ab1": "OWTP_owtp_node_Ab1", "a_b": "OWTP_a=5fb", "a.b": "OWTP_a_b", "a/b:c=d": "OWTP_a=2fb=3ac=3dd", "a-b": "OWTP_a-b",
	} {
		if got := streamName("OWTP_", queue); got != want {
			t.Errorf("%q: %s, want %s", queue, got, want)
		}
	}
}

// TestDenied: one that waits alone was not sent; of several nobody knows.
func TestDenied(t *testing.T) {
	for _, n := range []int{1, 2} {
		var w waiting
		var all []*waiter
		for i := range n {
			receipt := string(rune('A' + i))
			all = append(all, w.add("a", receipt, string(rune('a'+i)), receipt))
		}
		other := w.add("b", "", "z")
		w.deny("a")
		for _, x := range all {
			if r := <-x.results; errors.Is(r.err, transport.ErrNotSent) != (n == 1) || len(x.results) > 0 {
				t.Errorf("%d wait: %v", n, r.err)
			}
		}
		if len(other.results) > 0 {
			t.Error("another subject's exchange was ended")
		}
	}
}

// FuzzReply: whatever a request names for its answer, what is published to is a
// plain subject under the prefix of reply queues.
func FuzzReply(f *testing.F) {
	queue := transport.ReplyQueuePrefix + "node.abc"
	for _, d := range []time.Duration{0, time.Second, math.MaxInt64} {
		subject, _ := newReply(queue, d)
		f.Add(subject)
	}
	f.Add("owtp.reply.*.AAAAAAAAAAAAAAAA")
	f.Add("_INBOX.x.y")
	f.Fuzz(func(t *testing.T, subject string) {
		queue, mark, ok := splitReply(subject)
		if !ok {
			return
		}
		if queue+"."+mark != subject || !strings.HasPrefix(subject, transport.ReplyQueuePrefix) || strings.ContainsAny(subject, "*> \t\r\n\x00") || strings.Contains(subject, "..") {
			t.Errorf("%q is answered", subject)
		}
		if d := patience(mark, time.Hour); d < 0 || d > time.Hour {
			t.Errorf("%q: it waits for %v", subject, d)
		}
	})
}

// FuzzAddress: what is accepted can be dialled again from what Addr says, and
// errors repeat no password.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"nats://h:1", "tls://h", "nats://[::1]:4222?durable=true", "nats://h?creds=/c&durable=1", "nats://u:pass1word@h", "nats://u:pass1word@h:x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := parseAddress(transport.Config{Address: text})
		if err != nil {
			if strings.Contains(text, "://u:pass1word@") && strings.Contains(err.Error(), "pass1word") {
				t.Errorf("%q: the error repeats the password: %v", text, err)
			}
			return
		}
		if again, err := parseAddress(transport.Config{Address: a.String()}); err != nil || again != a {
			t.Errorf("%q is %+v, and its address %q is %+v, %v", text, a, a, again, err)
		}
	})
}
