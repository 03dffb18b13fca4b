package amqpt_test

import (
	"regexp"
	"testing"

	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// permissions are those of the package's documentation.
type permissions struct{ configure, write, read string }

func listening(name, queue string) permissions {
	name, queue = regexp.QuoteMeta(name), regexp.QuoteMeta(queue)
	return permissions{
		configure: `^(` + queue + `|` + queue + `\.dead|owtp\.(own|reply)\.` + name + `\..*)$`,
		write:     `^amq\.default$`,
		read:      `^(` + queue + `|owtp\.(own|reply)\.` + name + `\..*)$`,
	}
}

func calling(name string) permissions {
	name = regexp.QuoteMeta(name)
	return permissions{
		configure: `^owtp\.reply\.` + name + `\..*$`,
		write:     `^amq\.default$`,
		read:      `^owtp\.reply\.` + name + `\..*$`,
	}
}

// on is the same with an exchange.
func (p permissions) on(exchange string) permissions {
	exchange = regexp.QuoteMeta(exchange)
	return permissions{
		configure: p.configure,
		write:     `^` + exchange + `$|` + p.configure,
		read:      p.read + `|^` + exchange + `$`,
	}
}

func (p permissions) grant(t *testing.T, s *servers.Server, account string) {
	t.Helper()
	s.RabbitMQCtl(t, "set_permissions", "-p", "/", account, p.configure, p.write, p.read)
}

// TestLeastPermissions runs two nodes with just what the documentation says, and
// takes away one thing after the other.
func TestLeastPermissions(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	server, caller := cfg, cfg
	server.Account, server.Password, server.Name = "owtptestserver", "server's secret", "server"
	caller.Account, caller.Password, caller.Name = "owtptestcaller", "caller's secret", "caller"
	for _, c := range []transport.Config{server, caller} {
		s.RabbitMQCtl(t, "add_user", c.Account, c.Password)
		defer s.RabbitMQCtl(t, "delete_user", c.Account)
	}
	full := listening("server", cfg.ReadQueueName)
	full.grant(t, s, server.Account)
	calling("caller").grant(t, s, caller.Account)
	l, x := open(t, server, transporttest.Echo()), open(t, caller, nil)
	ask(t, x, "x")
	_, err := x.Exchange(t.Context(), transport.Message{Form: transport.Binary, Data: []byte("x"), To: l.Queues().Own})
	if err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}

	const nothing = `^$`
	for _, c := range []struct {
		name  string
		left  permissions
		texts []string
	}{
		{"configure", permissions{nothing, full.write, full.read}, []string{"configure queue " + cfg.ReadQueueName}},
		{"write", permissions{full.configure, nothing, full.read}, []string{"write to exchange amq.default"}},
		{"read", permissions{full.configure, full.write, nothing}, []string{"read queue owtp.reply.server."}},
	} {
		t.Run("without "+c.name, func(t *testing.T) {
			c.left.grant(t, s, server.Account)
			refused(t, server, transporttest.Echo(), append(c.texts, server.Account, `virtual host "/"`, "set_permissions")...)
		})
	}
	t.Run("caller without write", func(t *testing.T) {
		p := calling("caller")
		p.write = nothing
		p.grant(t, s, caller.Account)
		refused(t, caller, nil, "write to exchange amq.default", caller.Account)
	})
	t.Run("exchange", func(t *testing.T) {
		ch := raw(t, s)
		if err := ch.ExchangeDeclare("owtp.test", "topic", false, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ch.ExchangeDelete("owtp.test", false, false) }()
		remove(t, ch, cfg.ReadQueueName, cfg.ReadQueueName+".dead")
		server.Exchange, caller.Exchange = "owtp.test", "owtp.test"
		full.on("owtp.test").grant(t, s, server.Account)
		calling("caller").on("owtp.test").grant(t, s, caller.Account)
		open(t, server, transporttest.Echo())
		ask(t, open(t, caller, nil), "x")
		less := full.on("owtp.test")
		less.read = full.read
		less.grant(t, s, server.Account)
		refused(t, server, transporttest.Echo(), "binding queue", "read from exchange owtp.test")
	})
}
