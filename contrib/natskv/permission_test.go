package natskv_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/owtp-go/owtp/contrib/internal/brokertest"
	"github.com/owtp-go/owtp/contrib/nats/broker"
)

// TestDocumentedPermissions uses the store with an account that may do what the
// README says, and no more.
func TestDocumentedPermissions(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "<!-- store permissions -->")
	conf, _, ok := strings.Cut(rest, "<!-- end -->")
	_, publish, ok1 := strings.Cut(conf, "publish: [")
	publish, subscribe, ok2 := strings.Cut(publish, "subscribe: [")
	if !ok || !ok1 || !ok2 {
		t.Fatal("the README has no permissions of the store any more")
	}
	user := broker.User{Name: "store", Password: "p", Publish: quoted(publish), Subscribe: quoted(subscribe)}
	b := brokertest.New(t, broker.Options{Users: []broker.User{user, {Name: "nobody", Password: "p", Publish: []string{}, Subscribe: []string{"_INBOX.>"}}}})
	p := open(t, "nats://store:p@"+b.Addr+"?inbox=owtp.inbox.STORE")
	ctx := t.Context()
	v, err := p.PutIfAbsent(ctx, "a", []byte("1"), time.Hour)
	if err == nil {
		v, err = p.CompareAndSwap(ctx, "a", v, []byte("2"), time.Hour)
	}
	if err == nil {
		_, err = p.Touch(ctx, "a", v, time.Minute)
	}
	if err == nil {
		_, err = p.Get(ctx, "a")
	}
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := p.List(ctx, "", "", 10); len(keys) != 1 || err != nil {
		t.Errorf("List: %q, %v", keys, err)
	}
	if err := p.Delete(ctx, "a"); err != nil {
		t.Error(err)
	}
	start := time.Now()
	if p, err := connect(ctx, "nats://nobody:p@"+b.Addr); err == nil {
		p.Close()
		t.Error("an account that may nothing opens the store")
	} else if !strings.Contains(err.Error(), "STREAM.INFO") || time.Since(start) > 10*time.Second {
		t.Errorf("the error is %v, after %v", err, time.Since(start))
	}
}

func quoted(text string) (subjects []string) {
	for _, m := range regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(text, -1) {
		subjects = append(subjects, m[1])
	}
	return subjects
}
