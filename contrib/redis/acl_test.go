package redis_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"
)

// documentedACL returns the rules of the user in the package's documentation.
func documentedACL(t *testing.T) []string {
	t.Helper()
	doc, err := os.ReadFile("doc.go")
	must(t, err)
	_, rest, ok := strings.Cut(string(doc), "//\tuser owtp ")
	line, _, _ := strings.Cut(rest, "\n")
	rules := strings.Fields(line)
	if !ok || len(rules) < 10 || rules[1] != ">password" {
		t.Fatalf("the documentation has no rules for a user, or these: %q", rules)
	}
	return rules
}

// setUser makes a user of the server and returns the URL with which it opens a
// store.
func setUser(t *testing.T, s *servers.Server, name string, rules []string) string {
	t.Helper()
	args := []any{"acl", "setuser", name, "reset"}
	for _, r := range rules {
		args = append(args, r)
	}
	must(t, admin(t, s).Do(t.Context(), args...).Err())
	return fmt.Sprintf("redis://%s:password@%s/0", name, s.Addr)
}

// TestLeastUser does everything as the user that the documentation describes,
// and takes one permission after the other away: then something must fail, or
// it should not be in the documentation.
func TestLeastUser(t *testing.T) {
	s := servers.NewRedis(t)
	all := documentedACL(t)
	commands := 0
	for i, rule := range all {
		if !strings.HasPrefix(rule, "+") || rule == "+wait" { // that one is needed with replicas only
			continue
		}
		commands++
		url := setUser(t, s, "less", append(append([]string{}, all[:i]...), all[i+1:]...))
		// The server forgets its scripts, so that +eval is needed.
		must(t, admin(t, s).ScriptFlush(t.Context()).Err())
		if err := everything(t, url); err == nil {
			t.Errorf("everything works without %s", rule)
		}
	}
	if commands < 8 {
		t.Errorf("only %d commands in the documented rules", commands)
	}
	must(t, everything(t, setUser(t, s, "less", all)))
}

// everything uses every method, and wants a store that is known not to evict.
func everything(t *testing.T, url string) error {
	p, err := tryOpen(t, url)
	if err != nil {
		return err
	}
	if p.Traits().MayEvict {
		return errors.New(p.Traits().Evicts)
	}
	ctx := bounded(t, 10*time.Second)
	var v uint64
	var r session.Record
	for _, step := range []func() error{
		func() error { return p.Put(ctx, "a", []byte("1"), time.Hour) },
		func() error { r, err = p.Get(ctx, "a"); return err },
		func() error { v, err = p.CompareAndSwap(ctx, "a", r.Version, []byte("2"), time.Hour); return err },
		func() error { _, err = p.Touch(ctx, "a", v, time.Minute); return err },
		func() error { _, err = p.Touch(ctx, "a", v, 0); return err },
		func() error { _, err = p.PutIfAbsent(ctx, "b", nil, time.Hour); return err },
		func() error { _, err = p.List(ctx, "", "", 10); return err },
		func() error { return p.Delete(ctx, "b") },
		func() error { return p.Delete(ctx, "a") },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// TestNobodyTellsWhetherItEvicts: what cannot be learned is the worse.
func TestNobodyTellsWhetherItEvicts(t *testing.T) {
	s := servers.Redis(t)
	all := documentedACL(t)
	silent := append(append([]string{}, all...), "-info")
	p := open(t, setUser(t, s, "silent", silent))
	if got := p.Traits(); !got.MayEvict || got.Durable || !strings.Contains(got.Evicts, "INFO") {
		t.Errorf("a server that tells nothing: %+v", got)
	}
	p = open(t, setUser(t, s, "config", append(silent, "+config|get")))
	if got := p.Traits(); got.MayEvict {
		t.Errorf("a server that tells it by CONFIG GET: %+v", got)
	}
	// Others' keys are out of reach, and the error says who may not do what.
	p, err := tryOpen(t, setUser(t, s, "owtp", all)+"?prefix=other:")
	if err == nil || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("a prefix that the user may not use: %v, %v", p, err)
	}
}
