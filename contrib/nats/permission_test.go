package nats_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/contrib/nats"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// documented starts a server whose accounts may do what the README says, and no
// more.
func documented(t *testing.T, host, client string) (hostPlace, clientPlace place) {
	t.Helper()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "<!-- permissions -->\n```\n")
	conf, _, ok2 := strings.Cut(rest, "```\n<!-- end -->")
	if !ok || !ok2 {
		t.Fatal("the README has no permissions any more")
	}
	hostPlace, clientPlace = place{account: "host", password: rand.Text()}, place{account: "client", password: rand.Text()}
	conf = strings.NewReplacer("HOSTPASSWORD", hostPlace.password, "CLIENTPASSWORD", clientPlace.password, "HOST", host, "CLIENT", client).Replace(conf)
	dir := t.TempDir()
	conf += "jetstream { store_dir: \"" + filepath.Join(dir, "store") + "\" }\n"
	file := filepath.Join(dir, "conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	url := "nats://" + servers.NewNATS(t, "-c", file).Addr
	hostPlace.url, clientPlace.url = url, url
	return hostPlace, clientPlace
}

// TestDocumentedPermissions runs nodes with the accounts of the README, in all
// modes, with streams and without, and calls back.
func TestDocumentedPermissions(t *testing.T) {
	host, client := owtp.RandomOWTPNode(), owtp.RandomOWTPNode()
	t.Cleanup(func() { client.Close(); host.Close() })
	hostPlace, clientPlace := documented(t, host.NodeID(), client.NodeID())
	echo := func(ctx *owtp.Context) { ctx.Response(json.RawMessage(ctx.Data()), owtp.StatusSuccess, "") }
	for _, n := range []*owtp.OWTPNode{host, client} {
		if err := n.HandleFunc("echo", echo); err != nil {
			t.Fatal(err)
		}
	}
	if err := host.HandleFunc("back", func(ctx *owtp.Context) {
		resp, err := ctx.Node().CallSync(ctx.PID, "echo", "called back")
		if err != nil {
			ctx.Response(nil, owtp.ErrInternalServerError, err.Error())
			return
		}
		ctx.Response(resp.Result, owtp.StatusSuccess, "")
	}); err != nil {
		t.Fatal(err)
	}
	config := func(p place) owtp.ConnectConfig {
		return owtp.ConnectConfig{ConnectType: owtp.MQ, Address: p.url + "?durable=true", Account: p.account, Password: p.password}
	}
	if err := host.Listen(config(hostPlace)); err != nil {
		t.Fatal(err)
	}
	for i, mode := range []owtp.ConnectConfig{
		{}, {EnableSignature: true}, {EnableKeyAgreement: true},
	} {
		for _, options := range []string{"", "?durable=true"} {
			name := "host" + string(rune('a'+i)) + options
			mode.ConnectType, mode.Account, mode.Password = owtp.MQ, clientPlace.account, clientPlace.password
			mode.Address, mode.PeerID = clientPlace.url+options, host.NodeID()
			if err := client.Connect(name, mode); err != nil {
				t.Fatal(err)
			}
			for _, method := range []string{"echo", "back"} {
				if resp, err := client.CallSync(name, method, "x"); err != nil || !resp.OK() {
					t.Errorf("%s over %s: %v, %v", method, name, resp, err)
				}
			}
		}
	}
}

// TestNotPermitted: what an account may not do is an error at once that says what.
func TestNotPermitted(t *testing.T) {
	hostPlace, clientPlace := documented(t, "node1", "node2")
	host := hostPlace.config()
	host.ReadQueueName = "owtp.node.node1"
	e := listen(t, host, func(ctx context.Context, r transport.Remote, m transport.Message) (transport.Message, error) {
		return transporttest.Answer(m), nil
	})
	for _, c := range []struct {
		name   string
		at     place
		change func(*transport.Config)
		want   string
	}{
		{"another node's queue", clientPlace, func(c *transport.Config) { c.Name, c.ReadQueueName = "node2", "owtp.node.node1" }, "owtp.node.node1"},
		{"another node's name", clientPlace, func(c *transport.Config) { c.ReadQueueName = "" }, "node1."},
		{"another queue", hostPlace, func(c *transport.Config) { c.ReadQueueName = "other" }, "other"},
		{"a stream", hostPlace, func(c *transport.Config) {
			c.Address += "?durable=true"
			c.Account, c.Password = "client", clientPlace.password
			c.Name = "node2"
			c.ReadQueueName = ""
		}, ""},
	} {
		cfg := c.at.config()
		c.change(&cfg)
		start := time.Now()
		e, err := nats.New().Open(t.Context(), cfg, transporttest.Echo())
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			} else {
				e.Close()
			}
			continue
		}
		if err == nil {
			e.Close()
			t.Errorf("%s: it opens", c.name)
		} else if !strings.Contains(err.Error(), c.want) || !strings.Contains(strings.ToLower(err.Error()), "permission") {
			t.Errorf("%s: the error is %v", c.name, err)
		}
		if took := time.Since(start); took > patience/3 {
			t.Errorf("%s: it took %v", c.name, took)
		}
	}
	client := clientPlace.config()
	client.Name, client.ReadQueueName = "node2", ""
	client.Address += "?durable=true"
	x := dial(t, client)
	for _, to := range []string{"owtp.node.other", "secret"} {
		m := message("x")
		m.To = to
		start := time.Now()
		_, err := send(t, x, m)
		if !errors.Is(err, transport.ErrNotSent) || !strings.Contains(err.Error(), to) || time.Since(start) > patience/3 {
			t.Errorf("publishing to %s: %v after %v", to, err, time.Since(start))
		}
	}
	m := message("x")
	m.To = e.Queues().Own
	if _, err := send(t, x, m); err != nil {
		t.Errorf("what is permitted: %v", err)
	}
}
