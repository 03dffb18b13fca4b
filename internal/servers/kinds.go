package servers

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// A kind is what one sort of server needs.
type kind struct {
	name     string
	env      string // names a server that runs already
	packages string // Debian's, that have its programs
	programs []string
	user     string // "" if it runs as whoever we are
	password bool
	quit     syscall.Signal // asks it to end

	prepare func(s *Server) error
	command func(s *Server) ([]string, error)
	dsn     func(s *Server) string
	ready   func(conn net.Conn) error
}

func (k *kind) account() *account {
	if k.user == "" {
		return nil
	}
	return unprivileged(k.user)
}

// find returns where a program is: also where only root's PATH leads, and where
// Debian keeps the versions of PostgreSQL.
func find(program string) string {
	if path, err := exec.LookPath(program); err == nil {
		return path
	}
	for _, pattern := range []string{"/usr/sbin/", "/usr/local/sbin/", "/usr/local/bin/", "/usr/lib/postgresql/*/bin/", "/usr/pgsql-*/bin/"} {
		if found, _ := filepath.Glob(pattern + program); len(found) > 0 {
			return found[len(found)-1]
		}
	}
	return ""
}

// missing returns the first program that is not installed.
func (k *kind) missing() string {
	for _, p := range k.programs {
		if find(p) == "" {
			return p
		}
	}
	return ""
}

func (k *kind) advice() string {
	return fmt.Sprintf("install it (Debian: apt-get install %s)", k.packages)
}

var redis = kind{
	name: "redis", env: "OWTP_TEST_REDIS", packages: "redis-server", programs: []string{"redis-server"}, password: true, quit: syscall.SIGTERM,
	command: func(s *Server) ([]string, error) {
		// A test's own arguments come first, since a file of configuration
		// must, and win where they repeat one of these.
		argv := append([]string{find("redis-server")}, s.args...)
		return append(argv, redisDefaults(s)...), nil
	},
	dsn: func(s *Server) string { return "redis://:" + s.Password + "@" + s.Addr + "/0" },
	ready: func(conn net.Conn) error {
		return expect(conn, []byte("PING\r\n"), "+PONG", "-NOAUTH")
	},
}

func redisDefaults(s *Server) (argv []string) {
	own := make(map[string]bool)
	for _, a := range s.args {
		own[a] = true
	}
	for _, o := range [][2]string{
		{"--bind", "127.0.0.1"}, {"--port", s.Port()}, {"--dir", s.Dir}, {"--requirepass", s.Password}, {"--save", ""}, {"--appendonly", "yes"},
	} {
		if !own[o[0]] {
			argv = append(argv, o[0], o[1])
		}
	}
	return argv
}

var mariadb = kind{
	name: "mariadb", env: "OWTP_TEST_MYSQL", packages: "mariadb-server", programs: []string{"mariadbd", "mariadb-install-db"}, user: "mysql", password: true, quit: syscall.SIGTERM,
	prepare: func(s *Server) error {
		// Run at each start, so that it must stand being run again.
		setup := "CREATE DATABASE IF NOT EXISTS owtp;\n" +
			"CREATE OR REPLACE USER 'owtp'@'%' IDENTIFIED BY '" + s.Password + "';\n" +
			"GRANT ALL ON *.* TO 'owtp'@'%' WITH GRANT OPTION;\n" +
			"ALTER USER 'root'@'localhost' IDENTIFIED BY '" + s.Password + "';\n"
		file := filepath.Join(s.Dir, "setup.sql")
		if err := os.WriteFile(file, []byte(setup), 0o600); err != nil {
			return err
		}
		if err := s.kind.account().own(file); err != nil {
			return err
		}
		return run(s.Dir, s.kind.account(), find("mariadb-install-db"), "--no-defaults", "--datadir="+filepath.Join(s.Dir, "data"),
			"--auth-root-authentication-method=normal", "--skip-test-db")
	},
	command: func(s *Server) ([]string, error) {
		return append([]string{find("mariadbd"), "--no-defaults", "--datadir=" + filepath.Join(s.Dir, "data"), "--socket=" + filepath.Join(s.Dir, "s"),
			"--pid-file=" + filepath.Join(s.Dir, "pid"), "--bind-address=127.0.0.1", "--port=" + s.Port(), "--skip-name-resolve",
			"--init-file=" + filepath.Join(s.Dir, "setup.sql"), "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M", "--max-connections=500"}, s.args...), nil
	},
	dsn: func(s *Server) string { return "owtp:" + s.Password + "@tcp(" + s.Addr + ")/owtp" },
	ready: func(conn net.Conn) error {
		// The greeting: three octets of length, one of order, the version 10.
		var head [5]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return err
		}
		if head[4] != 10 {
			return fmt.Errorf("the server greets with %x", head)
		}
		return nil
	},
}

var postgres = kind{
	name: "postgresql", env: "OWTP_TEST_POSTGRES", packages: "postgresql", programs: []string{"postgres", "initdb"}, user: "postgres", password: true,
	// "Fast": connections are cut off, and shared memory is given back.
	quit: syscall.SIGINT,
	prepare: func(s *Server) error {
		file := filepath.Join(s.Dir, "password")
		if err := os.WriteFile(file, []byte(s.Password+"\n"), 0o600); err != nil {
			return err
		}
		if err := s.kind.account().own(file); err != nil {
			return err
		}
		return run(s.Dir, s.kind.account(), find("initdb"), "-D", filepath.Join(s.Dir, "data"), "-U", "owtp", "--pwfile="+file,
			"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync")
	},
	command: func(s *Server) ([]string, error) {
		return append([]string{find("postgres"), "-D", filepath.Join(s.Dir, "data"), "-c", "listen_addresses=127.0.0.1", "-c", "port=" + s.Port(),
			"-c", "unix_socket_directories=", "-c", "max_connections=300", "-c", "shared_buffers=64MB"}, s.args...), nil
	},
	dsn: func(s *Server) string {
		return "postgres://owtp:" + s.Password + "@" + s.Addr + "/postgres?sslmode=disable"
	},
	ready: func(conn net.Conn) error {
		// A startup message; a server that is not ready answers 'E' to it.
		body := []byte("\x00\x03\x00\x00user\x00owtp\x00database\x00postgres\x00\x00")
		return expect(conn, append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...), "R")
	},
}

var memcached = kind{
	name: "memcached", env: "OWTP_TEST_MEMCACHED", packages: "memcached", programs: []string{"memcached"}, user: "memcache", quit: syscall.SIGTERM,
	command: func(s *Server) ([]string, error) {
		return append([]string{find("memcached"), "-l", "127.0.0.1", "-p", s.Port(), "-U", "0"}, s.args...), nil
	},
	dsn: func(s *Server) string { return s.Addr },
	ready: func(conn net.Conn) error {
		return expect(conn, []byte("version\r\n"), "VERSION")
	},
}

// What a test says itself, in arguments or in a file that it names with -c, wins.
var nats = kind{
	name: "nats", env: "OWTP_TEST_NATS", packages: "nats-server", programs: []string{"nats-server"}, password: true, quit: syscall.SIGTERM,
	prepare: func(s *Server) error {
		conf := "authorization { user: owtp, password: \"" + s.Password + "\" }\n" +
			"jetstream { store_dir: \"" + filepath.Join(s.Dir, "store") + "\", max_mem: 0, max_file: 1G }\n"
		return os.WriteFile(filepath.Join(s.Dir, "conf"), []byte(conf), 0o600)
	},
	command: func(s *Server) ([]string, error) {
		argv := []string{find("nats-server"), "-a", "127.0.0.1", "-p", s.Port()}
		if !slices.Contains(s.args, "-c") {
			argv = append(argv, "-c", filepath.Join(s.Dir, "conf"))
		}
		return append(argv, s.args...), nil
	},
	dsn: func(s *Server) string { return "nats://owtp:" + s.Password + "@" + s.Addr },
	ready: func(conn net.Conn) error {
		// The server speaks first.
		return expect(conn, nil, "INFO ")
	},
}

// expect sends a request and wants one of these beginnings in return.
func expect(conn net.Conn, request []byte, answers ...string) error {
	if _, err := conn.Write(request); err != nil {
		return err
	}
	var buf [512]byte
	n, err := conn.Read(buf[:])
	if err != nil {
		return err
	}
	for _, a := range answers {
		if bytes.HasPrefix(buf[:n], []byte(a)) {
			return nil
		}
	}
	return fmt.Errorf("the server answers %q", buf[:n])
}

func secret() string { return rand.Text() }

// freePort looks below the ports that systems give to connections by themselves
// (from 32768 or 49152): such a one could be taken while a server is restarted,
// and somebody who dials it meanwhile may get connected to himself.
func freePort() (int, error) {
	for range 100 {
		port := 10_000 + mathrand.IntN(22_000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		l.Close()
		return port, nil
	}
	return 0, errors.New("no free port between 10000 and 32000")
}
