package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/owtp-go/owtp/internal/servers"
)

func TestMain(m *testing.M) {
	counted := leakChecked(func() int { return servers.RunMain(m) })
	testscript.Main(counted, map[string]func(){"owtp": main})
}

// leakChecked fails the tests when they leave goroutines behind. testscript
// runs it only where this binary is the tests and not the tool.
type leakChecked func() int

func (f leakChecked) Run() int { return f() }

// TestScripts runs the scripts of testdata/script. Beside testscript's own
// commands they have
//
//	exit CODE owtp ARGS...   run owtp and want this exit code
//	serve NAME FLAGS...      run owtp serve on free ports; sets NAME_ID and
//	                         the URLs NAME_HTTP, NAME_WS and, with --mq, NAME_MQ;
//	                         what it writes to standard error is in NAME.stderr
//	broker NAME FLAGS...     run owtp broker, on a free port unless --listen is
//	                         given; sets NAME_URL, NAME_ADDR and, with the account,
//	                         NAME_AT
//	rabbitmq NAME            use a real RabbitMQ: sets NAME_URL, NAME_ADDR and NAME_AT,
//	                         and writes the password to the file NAME.secret
//	wallet NAME [KIND]       run a node with the services of internal/teststubs, as
//	                         walletKinds says; sets NAME_HTTP and NAME_WS
//	end NAME                 end it by SIGTERM; it must end with code 0
//	secret FILE TEXT         write a file that only its owner can read
//	blackhole VAR            something that accepts connections and says nothing
//	closed VAR               an address where nobody listens
//	flip FILE OFFSET         change a bit of what is inside of a PEM file
//	cut FILE N               keep the first N bytes of a file
//	mode FILE PERM           check a file's permissions
//	tlscert CERT KEY         make a TLS certificate for 127.0.0.1
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setupScript,
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exit": cmdExit, "serve": cmdServe, "end": cmdEnd, "blackhole": cmdBlackhole,
			"closed": cmdClosed, "flip": cmdFlip, "cut": cmdCut, "mode": cmdMode,
			"tlscert": cmdTLSCert, "broker": cmdBroker, "rabbitmq": cmdRabbitMQ, "secret": cmdSecret,
			"wallet": cmdWallet,
		},
	})
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Errorf("no scripts were run: %v", err)
	}
	for _, name := range files {
		// testscript's own stop ends a script there, as passed.
		if text, err := os.ReadFile(name); err != nil || regexp.MustCompile(`(?m)^stop\b`).Match(text) {
			t.Errorf("%s: it has a stop, after which nothing runs, or cannot be read: %v", name, err)
		}
	}
}

// quickRace lets the race detector end without its usual second of waiting for
// more races, a second that every run of the tool would cost.
const quickRace = "atexit_sleep_ms=0"

// setupScript gives every script a home of its own.
func setupScript(env *testscript.Env) error {
	home := filepath.Join(env.WorkDir, "home")
	config := filepath.Join(home, ".config", "owtp")
	if runtime.GOOS == "darwin" {
		config = filepath.Join(home, "Library", "Application Support", "owtp")
	}
	env.Setenv("HOME", home)
	env.Setenv("CONFIG", config)
	keys, err := filepath.Abs("testdata/keys")
	if err != nil {
		return err
	}
	env.Setenv("KEYS", keys)
	env.Setenv("GORACE", quickRace)
	env.Setenv("TWO", "two\nlines")
	env.Values["servers"] = make(map[string]*exec.Cmd)
	env.Values["t"] = env.T()
	return os.Mkdir(home, 0o700)
}

func cmdExit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exit CODE command args...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var ended *exec.ExitError
		if !errors.As(err, &ended) {
			ts.Fatalf("%v", err)
		}
		code = ended.ExitCode()
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: serve NAME flags...")
	}
	name := args[0]
	lines := start(ts, name, append([]string{"serve", "--json", "--http", "127.0.0.1:0", "--ws", "127.0.0.1:0"}, args[1:]...))
	listeners := 2
	for _, a := range args {
		if a == "--mq" {
			listeners++
		}
	}
	for range listeners {
		var l listening
		lines(&l)
		ts.Setenv(name+"_ID", l.NodeID)
		ts.Setenv(name+"_"+strings.ToUpper(l.Transport), l.URL)
		ts.Setenv(name+"_"+strings.ToUpper(l.Transport)+"_ADDR", l.Address)
	}
}

func cmdBroker(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: broker NAME flags...")
	}
	var r running
	start(ts, args[0], append([]string{"broker", "--json", "--listen", "127.0.0.1:0"}, args[1:]...))(&r)
	setBroker(ts, args[0], r.URL, r.Account)
}

// setBroker tells a script where a broker is.
func setBroker(ts *testscript.TestScript, name, url, account string) {
	scheme, rest, _ := strings.Cut(url, "://")
	ts.Setenv(name+"_URL", url)
	ts.Setenv(name+"_ADDR", rest)
	ts.Setenv(name+"_AT", scheme+"://"+account+"@"+rest)
}

func cmdRabbitMQ(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: rabbitmq NAME")
	}
	s := servers.RabbitMQ(ts.Value("t").(testing.TB))
	u, err := url.Parse(s.DSN)
	ts.Check(err)
	password, _ := u.User.Password()
	writeSecret(ts, args[0]+".secret", password)
	setBroker(ts, args[0], "amqp://"+s.Addr, u.User.Username())
}

func cmdSecret(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: secret FILE TEXT")
	}
	writeSecret(ts, args[0], args[1])
}

func writeSecret(ts *testscript.TestScript, file, text string) {
	ts.Check(os.WriteFile(ts.MkAbs(file), []byte(text+"\n"), 0o600))
}

// start runs the tool in the background and returns what decodes its next line.
func start(ts *testscript.TestScript, name string, args []string) (next func(any)) {
	cmd := exec.Command(lookPath(ts, "owtp"), args...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = []string{"HOME=" + ts.Getenv("HOME"), "PATH=" + ts.Getenv("PATH"), "GORACE=" + quickRace}
	log, err := os.Create(ts.MkAbs(name + ".stderr"))
	ts.Check(err)
	defer log.Close()
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() { // a script that has failed does not stop it
		cmd.Process.Kill()
		cmd.Wait()
	})
	ts.Value("servers").(map[string]*exec.Cmd)[name] = cmd
	lines := bufio.NewScanner(out)
	return func(v any) {
		if !lines.Scan() {
			ts.Fatalf("owtp %s said nothing: %v\n%s", args[0], cmd.Wait(), ts.ReadFile(name+".stderr"))
		}
		ts.Check(json.Unmarshal(lines.Bytes(), v))
	}
}

func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: end NAME")
	}
	cmd := ts.Value("servers").(map[string]*exec.Cmd)[args[0]]
	if cmd == nil {
		ts.Fatalf("no server %s", args[0])
	}
	begin := time.Now()
	ts.Check(cmd.Process.Signal(syscall.SIGTERM))
	ts.Check(cmd.Wait())
	if d := time.Since(begin); d > shutdownTime {
		ts.Fatalf("it took %v to end", d)
	}
}

func lookPath(ts *testscript.TestScript, name string) string {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	ts.Fatalf("%s is not in PATH", name)
	return ""
}

func cmdBlackhole(ts *testscript.TestScript, neg bool, args []string) {
	ln := listen(ts, args)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var conns []net.Conn
		for {
			c, err := ln.Accept()
			if err != nil {
				break
			}
			conns = append(conns, c)
		}
		for _, c := range conns {
			c.Close()
		}
	}()
	ts.Defer(func() {
		ln.Close()
		<-done
	})
}

func cmdClosed(ts *testscript.TestScript, neg bool, args []string) {
	listen(ts, args).Close()
}

func listen(ts *testscript.TestScript, args []string) net.Listener {
	if len(args) != 1 {
		ts.Fatalf("want the name of a variable")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], ln.Addr().String())
	return ln
}

func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE OFFSET")
	}
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	block, _ := pem.Decode([]byte(ts.ReadFile(args[0])))
	if block == nil {
		ts.Fatalf("%s is not a PEM file", args[0])
	}
	if at < 0 {
		at += len(block.Bytes)
	}
	block.Bytes[at] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), pem.EncodeToMemory(block), 0o600))
}

func cmdCut(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: cut FILE N")
	}
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), n))
}

func cmdMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode FILE PERM")
	}
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}

func cmdTLSCert(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: tlscert CERT KEY")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ts.Check(err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
}
