package owtp_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// junk is what a stranger may send: every first octet, every type, sizes from
// nothing to more than a hello may have. It is the same in every run.
func junk() (out []transport.Message) {
	rnd := rand.New(rand.NewPCG(10, 451))
	octets := func(n int, head ...byte) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		copy(b, head)
		return b
	}
	for first := range 256 {
		out = append(out, binary(octets(1+first%64, byte(first))))
	}
	for typ := range 8 {
		for _, size := range []int{2, 3, 4, 20, 68, 200, 4098, 4099, 9000} {
			out = append(out, binary(octets(size, wire.Version, byte(typ))))
			out = append(out, binary(append([]byte{wire.Version, byte(typ)}, make([]byte, size)...)))
		}
	}
	for _, text := range []string{
		"", " ", "{", "}", "[]", "null", "{}", `{"v":2}`, `{"v":2,"r":1}`, `{"v":1,"r":1,"m":"pay"}`, `{"v":3,"r":1,"m":"pay"}`,
		`{"v":2,"r":1,"m":"pay","n":""}`, `{"v":2,"r":1,"m":"pay","n":"AAAAAAAAAAAAAAAAAAAAAA=="}`, `{"v":2,"r":99,"m":"pay"}`,
		`{"v":2,"v":2,"r":7}`, `{"v":2,"r":7}x`, "{\"v\":2,\"r\":7,\"m\":\"\xff\xfe\"}", `{"v":2,"r":7,"m":"\ud800"}`,
		`{"v":2,"r":2,"n":"AQEBAQEBAQEBAQEBAQEBAQ=="}`, `{"v":2,"r":4,"n":"AQEBAQEBAQEBAQEBAQEBAQ=="}`,
		strings.Repeat("[", 100_000), `{"d":` + strings.Repeat(`{"a":`, 50_000), `{"v":2,"r":1,"m":"` + strings.Repeat("m", 100_000) + `"}`,
	} {
		out = append(out, transport.Message{Form: transport.JSON, Data: []byte(text)}, binary([]byte(text)))
	}
	return out
}

// goroutines waits until no more run than before, with some room for what the
// pools of the standard library keep.
func goroutines(t *testing.T, before int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before+8; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, before the attack there were %d", runtime.NumGoroutine(), before)
		}
	}
}

// Junk in every first position: as the first message, after a hello, after open
// and inside a seal. The node neither falls over nor runs anything, forgets who
// sent it, and goes on serving.
func TestAttackJunk(t *testing.T) {
	for _, m := range media {
		t.Run(m.name, func(t *testing.T) {
			b := newBank(t, owtp.NodeConfig{})
			addr := b.listen(t, m, inOpen)
			_, key := newKey(t)
			honest := newNode(t, owtp.NodeConfig{})
			if err := honest.Connect("bank", b.at(addr, m, inSealed)); err != nil {
				t.Fatal(err)
			}
			pay := func() {
				t.Helper()
				resp, err := honest.CallSync("bank", "pay", payParams("honest"))
				if !judge(t, "honest", resp, err) {
					t.Fatalf("an honest peer is refused: %v", err)
				}
			}
			pay()
			before := runtime.NumGoroutine()
			hello := func() transport.Message {
				_, h, err := secure.Start(secure.Local{Key: key, Rand: zeroes{}}, secure.Offer{
					Transport: uint8(m.tr.Kind()), Mode: wire.ModeSealed, Suites: []*secure.Suite{secure.SM4}, Epoch: wire.Nonce{1},
				})
				if err != nil {
					t.Fatal(err)
				}
				return binary(h)
			}()
			prefixes := [][]transport.Message{nil}
			if !m.exchanges() {
				prefixes = append(prefixes, []transport.Message{hello},
					[]transport.Message{packetAs(transport.Binary, &wire.Packet{Kind: wire.Open})},
					[]transport.Message{packetAs(transport.JSON, &wire.Packet{Kind: wire.Open})})
			}
			delivered := 0
			for _, prefix := range prefixes {
				for i, msg := range junk() {
					if prefix != nil && i%5 != 0 {
						continue
					}
					if len(msg.Data) == 0 && m.exchanges() {
						continue // the transport sends none
					}
					a := dialRaw(t, m, addr, key)
					ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
					for _, p := range prefix {
						if _, err := a.ask(transport.Message{Form: p.Form, Data: bytes.Clone(p.Data)}); err != nil {
							t.Fatal(err)
						}
					}
					if a.exch != nil {
						answer, _ := a.exch.Exchange(ctx, msg)
						if typeOf(answer) == wire.TypeHelloReply {
							t.Errorf("junk was answered like a hello: %x", msg.Data)
						}
						a.exch.Close()
					} else {
						if err := a.conn.Send(ctx, msg); err != nil {
							t.Fatal(err)
						}
						a.conn.Close("")
					}
					cancel()
					delivered++
				}
			}
			// Inside a seal: who has proved who he is may send junk too.
			if !m.exchanges() {
				for i, msg := range junk() {
					if i%7 != 0 {
						continue
					}
					a := newRaw(t, m, addr, wire.ModeSealed)
					record, err := a.out.Seal(append(wire.AppendHeader(nil, wire.TypeRecord), msg.Data...))
					if err != nil {
						t.Fatal(err)
					}
					if err := a.conn.Send(short(t), binary(record)); err != nil {
						t.Fatal(err)
					}
					closes(t, a.conn, 3*time.Second)
					delivered++
				}
			}
			if delivered < 300 {
				t.Errorf("only %d pieces of junk were delivered", delivered)
			}
			runs := b.runs.Load()
			pay()
			b.ran(t, runs+1)
			b.mu.Lock()
			for _, p := range b.asked {
				if p.params != `{"token":"`+tokenMark+`honest"}` {
					t.Errorf("junk has run a handler: %+v", p)
				}
			}
			b.mu.Unlock()
			goroutines(t, before)
		})
	}
}

// zeroes is a source of no randomness for hellos that lead nowhere.
type zeroes struct{}

func (zeroes) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 7
	}
	return len(b), nil
}

// Junk as the answer to each message of a conversation: the caller gets an
// error, at once, and tries again in vain without falling over.
func TestAttackJunkToCaller(t *testing.T) {
	each(t, media, append([]guard{inOpen}, proofModes...), func(t *testing.T, m medium, g guard) {
		r := bareRig(t, m, g)
		for i, msg := range junk() {
			if i%29 != 0 {
				continue
			}
			for n := range 3 {
				var hit atomic.Int64
				r.client.ClosePeer("bank")
				seen := 0
				r.proxy.OnMessage(func(f transporttest.Flow) []transport.Message {
					at := f.N
					if m.exchanges() && f.Dir == transporttest.ToClient {
						at = seen
						seen++
					}
					if f.Dir == transporttest.ToClient && at == n {
						hit.Add(1)
						return []transport.Message{{Form: msg.Form, Data: bytes.Clone(msg.Data)}}
					}
					return pass(f)
				})
				err := r.connect()
				if err == nil {
					before := r.bank.runs.Load()
					ok, _ := r.pay("a", 2*time.Second)
					if ran := r.bank.runs.Load() - before; ran > 1 || ok && ran != 1 {
						t.Errorf("junk %d as answer %d: ok %v after %d runs", i, n, ok, ran)
					}
				}
				if hit.Load() == 0 && n == 0 {
					t.Errorf("junk %d as answer %d was not delivered: %v", i, n, err)
				}
			}
		}
		r.proxy.OnMessage(nil)
		r.client.ClosePeer("bank")
		if err := r.connect(); err != nil {
			t.Fatal(err)
		}
		r.mustPay("a")
	})
}

// A handshake that stalls ends by Limits.HandshakeTimeout, on both sides, and
// holds up nobody else.
func TestAttackStall(t *testing.T) {
	const timeout = 400 * time.Millisecond
	limits := owtp.Limits{HandshakeTimeout: timeout, BodyTimeout: timeout, MaxReconnectDelay: 100 * time.Millisecond, MaxHandshakes: 2, MaxHandshakeQueue: 4, MaxHandshakeRate: 1 << 20}
	each(t, longMedia, proofModes, func(t *testing.T, m medium, g guard) {
		b := newBank(t, owtp.NodeConfig{Limits: limits})
		addr := b.listen(t, m, g)
		_, key := newKey(t)
		var stalled []*raw
		begin := time.Now()
		for i := range 20 {
			a := dialRaw(t, m, addr, key)
			if i%2 == 0 {
				if err := a.offer(secure.Offer{Mode: wire.ModeSealedSigned}, nil); err != nil {
					t.Fatal(err)
				}
			}
			stalled = append(stalled, a)
		}
		client := newNode(t, owtp.NodeConfig{})
		if err := client.Connect("bank", b.at(addr, m, g)); err != nil {
			t.Fatalf("an honest peer has to wait: %v", err)
		}
		resp, err := client.CallSync("bank", "pay", payParams("a"))
		if !judge(t, "a", resp, err) {
			t.Fatal(err)
		}
		for _, a := range stalled {
			closes(t, a.conn, 10*timeout)
		}
		if took := time.Since(begin); took < timeout/2 {
			t.Errorf("they were thrown out after %v already: the test does not stall", took)
		}
		b.ran(t, 1)
	})
	// The caller's side: somebody answers nothing.
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		r := bareRig(t, m, g)
		r.client = newNode(t, owtp.NodeConfig{Limits: limits})
		r.proxy.OnMessage(func(f transporttest.Flow) []transport.Message { return nil })
		if m.exchanges() {
			// On HTTP a dropped answer is told; holding it back is not.
			r.proxy.OnMessage(nil)
			r.proxy.Pause()
			defer r.proxy.Resume()
		}
		begin := time.Now()
		err := r.connect()
		if took := time.Since(begin); err == nil || took < timeout/2 || took > 10*timeout {
			t.Errorf("ended after %v with %v", took, err)
		}
	})
}

// A request over HTTP that stalls in its headers or its body is cut off.
func TestAttackStallHTTP(t *testing.T) {
	const timeout = 400 * time.Millisecond
	b := newBank(t, owtp.NodeConfig{Limits: owtp.Limits{HandshakeTimeout: timeout, BodyTimeout: timeout}})
	addr := b.listen(t, overHTTP, inOpen)
	for name, text := range map[string]string{
		"nothing":  "",
		"headers":  "POST / HTTP/1.1\r\nHost: localhost\r\nContent-",
		"body":     "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/owtp+json\r\nContent-Length: 100\r\n\r\n{\"v\":2",
		"chunks":   "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/owtp+json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"v\"",
		"the rest": "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 1000000\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := io.WriteString(c, text); err != nil {
				t.Fatal(err)
			}
			c.SetReadDeadline(time.Now().Add(10 * timeout))
			if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Errorf("still open after %v", 10*timeout)
			}
		})
	}
}

// Call a local node from a web page: what a page's script can send is refused,
// on HTTP and on WebSocket, and no answer says that a page may read it.
func TestAttackWebPage(t *testing.T) {
	call := func() []byte {
		m := packetAs(transport.JSON, &wire.Packet{Kind: wire.Request, Method: "pay", Nonce: wire.Nonce{5}, Data: []byte(`{"token":"page"}`)})
		return m.Data
	}()
	type attack struct {
		name, method, host string
		header             map[string]string
		control            bool // is let in
	}
	const evil = "http://evil.example"
	json := "application/owtp+json"
	common := []attack{
		{"a program on this machine", "", "", nil, true},
		{"by the name localhost", "", "localhost:PORT", nil, true},
		{"another origin", "", "", map[string]string{"Origin": evil}, false},
		{"origin null, from a sandbox", "", "", map[string]string{"Origin": "null"}, false},
		{"an empty origin", "", "", map[string]string{"Origin": ""}, false},
		{"the node's own address as origin", "", "", map[string]string{"Origin": "http://127.0.0.1:PORT"}, false},
		{"localhost as origin", "", "", map[string]string{"Origin": "http://localhost:PORT"}, false},
		{"a rebound name", "", "evil.example", nil, false},
		{"a rebound name with port", "", "evil.example:PORT", nil, false},
		{"a rebound name like localhost", "", "localhost.evil.example", nil, false},
		{"a rebound name like an address", "", "127.0.0.1.evil.example", nil, false},
		{"a rebound name and its origin", "", "evil.example", map[string]string{"Origin": evil}, false},
	}
	run := func(t *testing.T, m medium, attacks []attack, do func(a attack, addr string) *http.Request, good int) {
		b := newBank(t, owtp.NodeConfig{})
		addr := b.listen(t, m, inOpen)
		_, port, _ := net.SplitHostPort(addr)
		pool := &http.Transport{DisableKeepAlives: true}
		defer pool.CloseIdleConnections()
		controls := 0
		for _, a := range attacks {
			a.host = strings.ReplaceAll(a.host, "PORT", port)
			req := do(a, addr)
			if a.host != "" {
				req.Host = a.host
			}
			for k, v := range a.header {
				if v == "absent" {
					req.Header.Del(k)
					continue
				}
				req.Header[k] = []string{strings.ReplaceAll(v, "PORT", port)}
			}
			resp, err := pool.RoundTrip(req)
			if err != nil {
				t.Errorf("%s: %v", a.name, err)
				continue
			}
			resp.Body.Close()
			if a.control {
				controls++
			}
			if (resp.StatusCode == good) != a.control || !a.control && resp.StatusCode < 400 {
				t.Errorf("%s: status %d", a.name, resp.StatusCode)
			}
			for k := range resp.Header {
				if strings.HasPrefix(k, "Access-Control-") {
					t.Errorf("%s: answered with %s", a.name, k)
				}
			}
			if m == overHTTP {
				b.ran(t, int64(controls))
			}
		}
		if controls == 0 {
			t.Error("nothing was let in: the test proves nothing")
		}
	}
	t.Run("http", func(t *testing.T) {
		attacks := append([]attack{
			{"GET", "GET", "", nil, false}, {"HEAD", "HEAD", "", nil, false}, {"PUT", "PUT", "", nil, false},
			{"OPTIONS", "OPTIONS", "", nil, false},
			{"a preflight", "OPTIONS", "", map[string]string{"Origin": evil, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}, false},
			{"text/plain, as a form may send", "", "", map[string]string{"Content-Type": "text/plain"}, false},
			{"text/plain that names ours", "", "", map[string]string{"Content-Type": "text/plain; application/owtp+json"}, false},
			{"a form", "", "", map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, false},
			{"a form with files", "", "", map[string]string{"Content-Type": "multipart/form-data; boundary=x"}, false},
			{"plain JSON", "", "", map[string]string{"Content-Type": "application/json"}, false},
			{"no content type", "", "", map[string]string{"Content-Type": "absent"}, false},
			{"two content types", "", "", map[string]string{"Content-Type": "application/owtp+json, text/plain"}, false},
			{"gzip", "", "", map[string]string{"Content-Encoding": "gzip"}, false},
		}, common...)
		run(t, overHTTP, attacks, func(a attack, addr string) *http.Request {
			method := a.method
			if method == "" {
				method = http.MethodPost
			}
			req, err := http.NewRequest(method, "http://"+addr+"/", bytes.NewReader(call))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", json)
			return req
		}, http.StatusOK)
	})
	t.Run("ws", func(t *testing.T) {
		run(t, overWS, common, func(a attack, addr string) *http.Request {
			req, err := http.NewRequest(http.MethodGet, "http://"+addr+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range map[string]string{
				"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13", "Sec-Websocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
			} {
				req.Header.Set(k, v)
			}
			return req
		}, http.StatusSwitchingProtocols)
	})
}
