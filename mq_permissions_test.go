package owtp_test

import (
	"crypto/rand"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/internal/servers"
)

// documentedPermissions are those of the README for RabbitMQ: of accounts, what
// they may configure, write and read.
func documentedPermissions(t *testing.T, file string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(file)
	must(t, err)
	_, rest, ok := strings.Cut(string(text), "<!-- rabbitmq -->\n```sh\n")
	lines, _, ok2 := strings.Cut(rest, "```\n<!-- end -->")
	if !ok || !ok2 {
		t.Fatalf("%s has no permissions for RabbitMQ", file)
	}
	all := make(map[string][]string)
	for _, m := range regexp.MustCompile(`(?m)^rabbitmqctl set_permissions -p / (\S+) \\?\n? *'([^']*)' '([^']*)' '([^']*)'$`).FindAllStringSubmatch(lines, -1) {
		all[m[1]] = m[2:]
	}
	if len(all) != strings.Count(lines, "set_permissions") {
		t.Fatalf("of these lines some cannot be read:\n%s", lines)
	}
	return all
}

// Two nodes whose accounts may do what the README says, and no more, call each
// other; without any part of it something is missing.
func TestRabbitDocumentedPermissions(t *testing.T) {
	broker := servers.RabbitMQ(t)
	documented := documentedPermissions(t, "README.md")
	for name, chinese := range documentedPermissions(t, "README.zh-CN.md") {
		if strings.Join(chinese, " ") != strings.Join(documented[name], " ") {
			t.Errorf("the two READMEs differ about %s", name)
		}
	}
	host, client := randomNode(t), randomNode(t)
	password := rand.Text()
	config := func(name string) owtp.ConnectConfig {
		return owtp.ConnectConfig{ConnectType: owtp.MQ, Address: "amqp://" + broker.Addr, Account: "owtptest" + name, Password: password, EnableKeyAgreement: true}
	}
	grant := func(name string, p []string) {
		args := []string{"set_permissions", "-p", "/", "owtptest" + name}
		for _, pattern := range p {
			args = append(args, strings.NewReplacer("HOST", host.NodeID(), "CLIENT", client.NodeID()).Replace(pattern))
		}
		broker.RabbitMQCtl(t, args...)
	}
	for _, name := range []string{"host", "client"} {
		if documented[name] == nil {
			t.Fatalf("the README says nothing of the account %s", name)
		}
		broker.RabbitMQCtl(t, "add_user", "owtptest"+name, password)
		t.Cleanup(func() { broker.RabbitMQCtl(t, "delete_user", "owtptest"+name) })
		grant(name, documented[name])
	}
	must(t, client.HandleFunc("echo", echo))
	must(t, host.HandleFunc("ask", func(c *owtp.Context) {
		r, err := c.Node().CallContext(c.Context(), c.PID, "echo", "back", nil)
		if err != nil {
			c.Response(nil, owtp.StatusOf(err), err.Error())
			return
		}
		c.Resp = *r
	}))
	must(t, host.Listen(config("host")))
	must(t, client.Connect(host.NodeID(), config("client")))
	if r := answer(t, client, host.NodeID(), "ask", nil); r.JsonData().String() != "back" {
		t.Errorf("%+v", r)
	}
	for _, name := range []string{"host", "client"} {
		for i, what := range []string{"configure", "write", "read"} {
			less := append([]string(nil), documented[name]...)
			less[i] = "^$"
			grant(name, less)
			var err error
			if name == "host" {
				err = startNode(t, owtp.NodeConfig{Cert: host.Certificate()}).Listen(config("host"))
			} else {
				err = startNode(t, owtp.NodeConfig{Cert: client.Certificate()}).Connect(host.NodeID(), config("client"))
			}
			if err == nil {
				t.Errorf("%s works without %s", name, what)
			}
		}
	}
}
