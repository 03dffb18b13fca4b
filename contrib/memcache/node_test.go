package memcache_test

import (
	"strings"
	"testing"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"
)

// A node refuses a cache for its own state, and says why; for its users'
// sessions it takes it.
func TestNode(t *testing.T) {
	config := servers.Memcached(t).DSN
	cert := owtp.NewRandomCertificate()
	_, err := owtp.New(owtp.NodeConfig{Cert: cert, Store: open(t, config)})
	if err == nil {
		t.Fatal("a node keeps its state in a cache")
	}
	for _, word := range []string{`"memcache"`, "may evict", "run twice", "redis"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %s: %v", word, err)
		}
	}
	m, err := owtp.NewSessionManager("memcache", &session.ManagerConfig{ProviderConfig: config, SessionIDPrefix: cert.ID()})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	n, err := owtp.New(owtp.NodeConfig{Cert: cert, Peerstore: m})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	client, err := owtp.New(owtp.NodeConfig{Cert: owtp.NewRandomCertificate()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	handle := func(method string, f owtp.HandlerFunc) {
		if err := n.HandleFunc(method, f); err != nil {
			t.Fatal(err)
		}
	}
	handle("login", func(c *owtp.Context) {
		if err := c.SetSession("user", "kkk"); err != nil {
			c.Response(nil, owtp.ErrCustomError, err.Error())
		}
	})
	handle("who", func(c *owtp.Context) { c.Response(c.GetSession("user"), owtp.StatusSuccess, "") })
	if err := n.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.HTTP, EnableSignature: true}); err != nil {
		t.Fatal(err)
	}
	if err := client.Connect("host", owtp.ConnectConfig{Address: n.ListenerAddr(owtp.HTTP), ConnectType: owtp.HTTP, EnableSignature: true}); err != nil {
		t.Fatal(err)
	}
	if resp, err := client.CallSync("host", "login", nil); err != nil || !resp.OK() {
		t.Fatalf("%+v, %v", resp, err)
	}
	if resp, err := client.CallSync("host", "who", nil); err != nil || resp.JsonData().String() != "kkk" {
		t.Errorf("%+v, %v", resp, err)
	}
}
