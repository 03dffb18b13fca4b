package servers

import (
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// RabbitMQ returns the RabbitMQ that the package's tests share. The user may do
// everything in the virtual host "/", and log in from anywhere.
func RabbitMQ(t testing.TB) *Server { t.Helper(); return share(t, &rabbitmq) }

// NewRabbitMQ starts a RabbitMQ of the test's own, with further lines of
// rabbitmq.conf.
func NewRabbitMQ(t testing.TB, lines ...string) *Server { t.Helper(); return own(t, &rabbitmq, lines) }

var rabbitmq = kind{
	name: "rabbitmq", env: "OWTP_TEST_RABBITMQ", packages: "rabbitmq-server", programs: []string{"rabbitmq-server", "rabbitmqctl", "epmd"},
	user: "rabbitmq", password: true, quit: syscall.SIGTERM,
	prepare: func(s *Server) error {
		// Two schedulers that do not spin: tests share the machine.
		conf := append([]string{"default_user = owtp", "default_pass = " + s.Password, "loopback_users = none",
			"log.console = true", "log.file = false", "vm_memory_high_watermark.absolute = 1GB", "disk_free_limit.absolute = 50MB"}, s.args...)
		file := filepath.Join(s.Dir, "rabbitmq.conf")
		if err := os.WriteFile(file, []byte(strings.Join(conf, "\n")+"\n"), 0o600); err != nil {
			return err
		}
		return s.kind.account().own(file)
	},
	command: func(s *Server) ([]string, error) {
		// The ports of Erlang's name server and of its connections between
		// nodes, which rabbitmqctl uses too.
		var ports [2]string
		for i := range ports {
			port, err := freePort()
			if err != nil {
				return nil, err
			}
			ports[i] = strconv.Itoa(port)
		}
		s.env = []string{
			"HOME=" + s.Dir, "LANG=C.UTF-8", "PATH=" + os.Getenv("PATH"),
			"ERL_EPMD_ADDRESS=127.0.0.1", "ERL_EPMD_PORT=" + ports[0], "RABBITMQ_DIST_PORT=" + ports[1],
			"RABBITMQ_NODENAME=owtp" + s.Port() + "@localhost", "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_NODE_PORT=" + s.Port(),
			"RABBITMQ_CONFIG_FILE=" + filepath.Join(s.Dir, "rabbitmq.conf"), "RABBITMQ_CONF_ENV_FILE=/dev/null",
			"RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(s.Dir, "plugins"),
			"RABBITMQ_MNESIA_BASE=" + filepath.Join(s.Dir, "data"), "RABBITMQ_LOG_BASE=" + filepath.Join(s.Dir, "logs"),
			"RABBITMQ_ALLOW_INPUT=1", // the server replaces its script
			"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-noinput -kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
		}
		argv := append([]string{"env", "-i"}, s.env...)
		return append(argv, "sh", "-c", rabbitScript, "sh", find("epmd"), ports[0], rabbitProgram("rabbitmq-server")), nil
	},
	dsn: func(s *Server) string {
		return (&url.URL{Scheme: "amqp", User: url.UserPassword("owtp", s.Password), Host: s.Addr, Path: "/"}).String()
	},
	ready: func(conn net.Conn) error {
		return expect(conn, []byte("AMQP\x00\x00\x09\x01"), "\x01\x00\x00")
	},
}

// rabbitScript runs Erlang's name server for the life of the broker, which would
// leave it behind.
const rabbitScript = `
"$1" -port "$2" -address 127.0.0.1 >/dev/null 2>&1 &
epmd=$!
"$3" &
server=$!
trap 'kill -TERM $server' TERM
while kill -0 $server 2>/dev/null; do wait $server; done
kill $epmd
`

// rabbitProgram prefers the programs themselves to Debian's wrappers, which run
// as one account only and with one folder.
func rabbitProgram(name string) string {
	for _, pattern := range []string{"/usr/lib/rabbitmq/bin/", "/usr/lib/rabbitmq/lib/*/sbin/", "/opt/rabbitmq/sbin/"} {
		if found, _ := filepath.Glob(pattern + name); len(found) > 0 {
			return found[len(found)-1]
		}
	}
	return find(name)
}

// RabbitMQCtl runs rabbitmqctl on the server and returns what it printed.
func (s *Server) RabbitMQCtl(t testing.TB, args ...string) string {
	t.Helper()
	var cmd *exec.Cmd
	if s.Dir != "" {
		cmd = exec.Command(rabbitProgram("rabbitmqctl"), append([]string{"-q"}, args...)...)
		cmd.Env, cmd.Dir, cmd.SysProcAttr = s.env, s.Dir, s.kind.account().attributes()
	} else {
		if s.control == "" {
			t.Fatalf("this test configures %s: set %s_CONTROL to a command that runs rabbitmqctl for \"ctl\" and its arguments, or %s", s.kind.name, s.kind.env, s.kind.advice())
		}
		cmd = exec.Command("sh", append([]string{"-c", s.control + ` "$@"`, "sh", "ctl"}, args...)...)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("rabbitmqctl %s: %v\n%s", args[0], err, out)
	}
	return string(out)
}
