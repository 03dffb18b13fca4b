package owtp_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
)

// Those who hold connections and do nothing are a process of their own, so that
// the server's memory, goroutines and sockets are its own.

const (
	holdEnv = "OWTP_HOLD" // addresses: open, sealed, http
	// Of ten thousand that are held, so many parts are proved; each has a node
	// of its own.
	provedPart = 50
)

// held is how many connections are held: OWTP_SOAK_CONNS, or few.
func held(t *testing.T) (n int, long bool) {
	text := os.Getenv("OWTP_SOAK_CONNS")
	if text == "" {
		return 500, false
	}
	n, err := strconv.Atoi(text)
	must(t, err)
	return n, true
}

// hold is the life of the process that holds connections: it makes them, says
// "ready", and goes when its input ends.
func hold(spec string) error {
	var open, sealed, http string
	var n int
	if _, err := fmt.Sscan(spec, &open, &sealed, &http, &n); err != nil {
		return err
	}
	if err := files(uint64(n + 1000)); err != nil {
		return err
	}
	crowd, err := owtp.New(owtp.NodeConfig{Cert: owtp.NewRandomCertificate()})
	if err != nil {
		return err
	}
	defer crowd.Close()
	proved := n / provedPart
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	var next atomic.Int64
	for range 16 {
		wg.Go(func() {
			for i := next.Add(1); int(i) <= n && failed.Load() == nil; i = next.Add(1) {
				node, at := crowd, owtp.ConnectConfig{Address: open, ConnectType: owtp.Websocket}
				if int(i) <= proved {
					own, err := owtp.New(owtp.NodeConfig{Cert: owtp.NewRandomCertificate()})
					if err != nil {
						failed.Store(&err)
						return
					}
					node = own // it lives as long as the process
					at = owtp.ConnectConfig{Address: sealed, ConnectType: owtp.Websocket, EnableKeyAgreement: true}
				}
				if err := node.Connect(fmt.Sprint("host", i), at); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	slow := min(n/20, 250)
	for i := range slow {
		go dawdle(ctx, i, open, http)
	}
	fmt.Println("ready", n, "and", slow, "that dawdle")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// dawdle sends a byte a minute, in one part of a message or another, or has
// closed its half of the socket; it comes back when it is cut off.
func dawdle(ctx context.Context, i int, ws, http string) {
	parts := []struct{ addr, first, rest string }{
		{ws, "", upgradeRequest},
		{http, "", "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n"},
		{http, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n", `{"r":1,"m":"echo"`},
		{ws, upgradeRequest, string(frameOf([]byte("0123456789")))},
		{ws, upgradeRequest, ""}, // half closed
		{http, "POST / HT", ""},
	}
	p := parts[i%len(parts)]
	for ctx.Err() == nil {
		c, err := from(ctx, i, p.addr)
		if err != nil {
			sleepOr(ctx, 100*time.Millisecond)
			continue
		}
		stop := context.AfterFunc(ctx, func() { c.Close() })
		io.WriteString(c, p.first)
		if p.rest == "" {
			c.(*net.TCPConn).CloseWrite()
		}
		gone := make(chan struct{})
		go func() {
			io.Copy(io.Discard, c)
			close(gone)
		}()
		for rest, there := p.rest, true; there; {
			if rest != "" {
				io.WriteString(c, rest[:1])
				rest = rest[1:]
			}
			select {
			case <-gone:
				there = false
			case <-time.After(time.Minute):
			}
		}
		c.Close()
		stop()
		sleepOr(ctx, 50*time.Millisecond)
	}
}

// A holder is the other process.
type holder struct {
	cmd *exec.Cmd
	in  io.WriteCloser
}

func startHolder(t *testing.T, spec string) *holder {
	t.Helper()
	h := &holder{cmd: exec.Command(os.Args[0])}
	h.cmd.Env = append(os.Environ(), holdEnv+"="+spec)
	h.cmd.Stderr = os.Stderr
	out, err := h.cmd.StdoutPipe()
	must(t, err)
	h.in, err = h.cmd.StdinPipe()
	must(t, err)
	must(t, h.cmd.Start())
	t.Cleanup(func() {
		h.in.Close()
		h.cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "ready") {
		t.Fatalf("the process that holds connections said %q, %v", line, err)
	}
	t.Log(strings.TrimSpace(line))
	return h
}

// footprint is what the process holds, heap and stacks, after a collection.
func footprint() float64 {
	heap()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}

// Thousands of idle connections, some proved, among them sockets that are half
// closed and clients that send a byte a minute: each costs little, all of them
// nothing more as time goes by, and honest calls go on.
func TestIdleConnections(t *testing.T) {
	count, long := held(t)
	must(t, files(uint64(count+1000)))
	// Few calls on a machine that does other things tell little.
	length, heartbeat, slowest := time.Second/2, 2*time.Second, 8.0
	if long {
		length, heartbeat, slowest = 3*time.Second, 15*time.Second, 3
	}
	const cutOff = time.Second
	host := startNode(t, owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Window: time.Second, Limits: owtp.Limits{
		HandshakeTimeout: 10 * time.Second, BodyTimeout: cutOff, MaxHandshakeRate: fast, Heartbeat: heartbeat,
	}})
	must(t, host.HandleFunc("echo", echo))
	listen := func(connectType string, sign, seal bool) string {
		face := owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: connectType, EnableSignature: sign, EnableKeyAgreement: seal}
		before := make(map[string]bool)
		for _, a := range host.ListenerAddrs() {
			before[a] = true
		}
		must(t, host.Listen(face))
		for _, a := range host.ListenerAddrs() {
			if !before[a] {
				return a
			}
		}
		t.Fatal("no address")
		return ""
	}
	open, sealed, http := listen(owtp.Websocket, false, false), listen(owtp.Websocket, false, true), listen(owtp.HTTP, true, false)
	c := &crowd{client: randomNode(t), names: []string{"ws", "http"}}
	must(t, c.client.Connect("ws", owtp.ConnectConfig{Address: sealed, ConnectType: owtp.Websocket, EnableKeyAgreement: true}))
	must(t, c.client.Connect("http", owtp.ConnectConfig{Address: http, ConnectType: owtp.HTTP, EnableSignature: true}))
	c.p99(t, length)
	var calm, held [][]time.Duration
	measure := func(into *[][]time.Duration, rounds int) {
		for range rounds {
			p, _ := c.p99(t, length)
			*into = append(*into, p)
		}
	}
	measure(&calm, 3)
	threads, before := runtime.NumGoroutine(), footprint()

	h := startHolder(t, fmt.Sprintf("%s %s %s %d", open, sealed, http, count))
	links := func() int { n, _, _, _ := host.Held(); return n }
	if n := links(); n < count {
		t.Fatalf("%d connections are held, want %d", n, count)
	}
	each := (footprint() - before) / float64(count)
	const mostBytes = 64 << 10
	t.Logf("%d connections: %.1f KiB each", count, each/1024)
	if each > mostBytes {
		t.Errorf("an idle connection costs %.0f bytes, at most %d", each, mostBytes)
	}
	measure(&held, 5)
	// Heartbeats come and go; nothing grows with time.
	first := footprint()
	time.Sleep(3 * heartbeat)
	last, goroutines := footprint(), runtime.NumGoroutine()
	slow := min(count/20, 250)
	t.Logf("memory %.1f MiB before, %.1f MiB held, %.1f MiB after %v; %d goroutines before, %d held", before/(1<<20), first/(1<<20), last/(1<<20), 3*heartbeat, threads, goroutines)
	if last > first*1.1+4<<20 {
		t.Errorf("memory has grown from %.0f to %.0f while nothing happened", first, last)
	}
	if n := links(); n < count {
		t.Errorf("only %d connections are left of %d that live", n, count)
	}
	// A connection has its reader (ARCHITECTURE.md) and nothing else; who
	// dawdles has at most net/http's two besides.
	if most := threads + count + 4*slow + 64; goroutines > most {
		t.Errorf("%d goroutines, at most %d", goroutines, most)
	}
	h.in.Close()
	if err := h.cmd.Wait(); err != nil {
		t.Errorf("the process that held them: %v", err)
	}
	eventually(t, "the connections are gone", func() bool { return links() <= 1 })
	eventually(t, "their goroutines are gone", func() bool { return runtime.NumGoroutine() <= threads+32 })
	// Honest calls leave records, so what counts is what has come back.
	if after := footprint(); after > last-0.8*each*float64(count)+8<<20 {
		t.Errorf("%.1f MiB before, %.1f held and %.1f after it", before/(1<<20), last/(1<<20), after/(1<<20))
	}
	measure(&calm, 3)
	for i, name := range c.names {
		ratio := float64(middle(held, i)) / float64(middle(calm, i))
		t.Logf("%d connections held, %s: p99 of honest calls %v without, %v with, ratio %.2f", count, name, middle(calm, i), middle(held, i), ratio)
		if ratio > slowest {
			t.Errorf("%s: honest calls are slowed down %.2f times", name, ratio)
		}
	}
}

// middle is the median of the rounds, for one name.
func middle(rounds [][]time.Duration, name int) time.Duration {
	var all []time.Duration
	for _, r := range rounds {
		all = append(all, r[name])
	}
	slices.Sort(all)
	return all[len(all)/2]
}
