package replicas_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/internal/wire"
)

const (
	replicaCount = 3
	patience     = 60 * time.Second
)

// A cluster is three replicas, each a process of its own, over one store; or
// over one store each, if that is "memory".
type cluster struct {
	t        *testing.T
	store    *servers.Server // nil for "memory"
	config   replicaConfig
	nodeID   string
	replicas []*process
	lb       *balancer // nil behind a broker
}

// A process is one life of a replica.
type process struct {
	addr  string
	cmd   *exec.Cmd
	leash io.Closer // its standard input: it ends with that
	log   string
}

// newCluster starts a cluster behind a balancer.
func newCluster(t *testing.T, b backing) *cluster {
	t.Helper()
	c := startCluster(t, b, "")
	var addrs []string
	for _, p := range c.replicas {
		addrs = append(addrs, p.addr)
	}
	c.lb = newBalancer(t, addrs)
	return c
}

// startCluster starts replicas that listen at a broker, or at ports of their own
// if it is "".
func startCluster(t *testing.T, b backing, broker string) *cluster {
	t.Helper()
	key := owtp.RandomPrivateKey()
	cert, err := owtp.NewCertificate(key)
	must(t, err)
	c := &cluster{t: t, nodeID: cert.ID()}
	c.config = replicaConfig{Key: key, Store: b.name, Broker: broker, Runs: filepath.Join(t.TempDir(), "runs")}
	if b.start != nil {
		c.store = b.start(t)
		c.config.DSN = c.store.DSN
	}
	// All at once: the store is set up by whichever comes first.
	begun := make([]*process, replicaCount)
	for i := range begun {
		begun[i] = c.launch("127.0.0.1:0")
	}
	for _, p := range begun {
		c.await(p)
	}
	c.replicas = begun
	t.Cleanup(func() {
		for _, p := range c.replicas {
			c.end(p)
		}
	})
	return c
}

// launch begins a process; await waits until it listens.
func (c *cluster) launch(addr string) *process {
	c.t.Helper()
	cfg := c.config
	cfg.Address = addr
	text, err := json.Marshal(cfg)
	must(c.t, err)
	log, err := os.CreateTemp(c.t.TempDir(), "replica-*.log")
	must(c.t, err)
	defer log.Close()
	p := &process{cmd: exec.Command(os.Args[0]), log: log.Name()}
	p.cmd.Env = append(os.Environ(), replicaEnv+"="+string(text))
	p.cmd.Stderr = log
	p.leash, err = p.cmd.StdinPipe()
	must(c.t, err)
	out, err := p.cmd.StdoutPipe()
	must(c.t, err)
	must(c.t, p.cmd.Start())
	said := bufio.NewScanner(out)
	if said.Scan() {
		p.addr = said.Text()
	}
	return p
}

func (c *cluster) await(p *process) {
	c.t.Helper()
	if p.addr == "" {
		c.end(p)
		text, _ := os.ReadFile(p.log)
		c.t.Fatalf("a replica does not start: %s", text)
	}
}

func (c *cluster) end(p *process) {
	p.leash.Close()
	over := time.AfterFunc(patience, func() { p.cmd.Process.Kill() })
	defer over.Stop()
	p.cmd.Wait() // of one that was killed, its error is expected
}

// kill ends a replica as a crash would.
func (c *cluster) kill(i int) {
	c.t.Helper()
	must(c.t, c.replicas[i].cmd.Process.Kill())
	c.replicas[i].cmd.Wait()
}

// shutDown tells a replica to end as an operator would; wait returns when it
// has.
func (c *cluster) shutDown(i int) (wait func()) {
	c.t.Helper()
	p := c.replicas[i]
	must(c.t, p.cmd.Process.Signal(syscall.SIGTERM))
	return func() {
		if err := p.cmd.Wait(); err != nil {
			text, _ := os.ReadFile(p.log)
			c.t.Errorf("a replica that was shut down ended with %v: %s", err, text)
		}
	}
}

// restart begins a replica anew at the address that it had.
func (c *cluster) restart(i int) {
	c.t.Helper()
	p := c.launch(c.replicas[i].addr)
	c.await(p)
	c.replicas[i] = p
}

// connect returns a client of the cluster, by way of the balancer.
func (c *cluster) connect(mode owtp.ConnectConfig, limits owtp.Limits) *owtp.OWTPNode {
	c.t.Helper()
	n, err := owtp.New(owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Limits: limits})
	must(c.t, err)
	c.t.Cleanup(func() { must(c.t, n.Close()) })
	mode.Address, mode.ConnectType, mode.PeerID = c.lb.addr, owtp.HTTP, c.nodeID
	must(c.t, n.Connect("cluster", mode))
	return n
}

// An answer of "do".
type answer struct{ id, pid int }

func do(n *owtp.OWTPNode, id int, opts *owtp.CallOptions) (answer, error) {
	method := "do"
	if opts != nil && opts.Repeatable {
		method = "redo"
	}
	resp, err := n.CallContext(context.Background(), "cluster", method, map[string]int{"id": id}, opts)
	if err == nil {
		err = resp.Err()
	}
	if err != nil {
		return answer{}, err
	}
	return answer{int(resp.JsonData().Get("id").Int()), int(resp.JsonData().Get("pid").Int())}, nil
}

func (c *cluster) mustDo(n *owtp.OWTPNode, id int) answer {
	c.t.Helper()
	a, err := do(n, id, nil)
	must(c.t, err)
	if a.id != id {
		c.t.Fatalf("the answer of call %d came to call %d", a.id, id)
	}
	return a
}

// runs counts, by call, the handlers that have begun in any life of any replica.
func (c *cluster) runs() map[int]int {
	c.t.Helper()
	text, err := os.ReadFile(c.config.Runs)
	must(c.t, err)
	counts := make(map[int]int)
	for line := range strings.FieldsSeq(string(text)) {
		id, err := strconv.Atoi(line)
		must(c.t, err)
		counts[id]++
	}
	return counts
}

func (c *cluster) total() (n int) {
	for _, runs := range c.runs() {
		n += runs
	}
	return n
}

// agreements counts recorded hellos that agree on keys.
func (c *cluster) agreements() (n int) {
	for _, m := range c.lb.recorded() {
		typ, body, err := wire.ParseHeader(m.body)
		if err != nil || typ != wire.TypeHello {
			continue
		}
		h, err := wire.ParseHello(body)
		must(c.t, err)
		if !h.Proof() {
			n++
		}
	}
	return n
}

func isHello(m message) bool {
	typ, _, err := wire.ParseHeader(m.body)
	return err == nil && typ == wire.TypeHello
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
