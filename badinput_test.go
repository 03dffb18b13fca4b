package owtp_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/session"
)

// What bad input gets: a clear error, and nobody else is disturbed. Every test
// that sends something ends with the call of an honest peer.

func TestBadKeys(t *testing.T) {
	zero := strings.Repeat("1", 32)                         // base58 of 32 zero octets
	order := "JEKNVnkbo3jma5nREBBJCDoXFVeKkD56V3xKrvRmWxFG" // 32 times 0xff
	for name, key := range map[string]string{
		"empty": "", "not base58": "0OIl", "short": "2g", "long": strings.Repeat("z", 60), "huge": strings.Repeat("z", 1<<20),
		"zero": zero, "beyond the order": order, "space": " " + owtp.RandomPrivateKey(), "invalid UTF-8": "\xff\xfe",
	} {
		cert, err := owtp.NewCertificate(key)
		if err == nil || cert.ID() != "" {
			t.Errorf("%s: the key was taken", name)
			continue
		}
		if len(err.Error()) > 300 || key != "" && len(key) > 4 && strings.Contains(err.Error(), key) {
			t.Errorf("%s: the error repeats the key: %v", name, err)
		}
	}
	_, err := owtp.NewCertificate(owtp.RandomPrivateKey(), "des")
	wantErr(t, err, "des", "aes", "sm4")
	for _, suite := range []string{"aes", "sm4", ""} {
		if _, err := owtp.NewCertificate(owtp.RandomPrivateKey(), suite); err != nil {
			t.Errorf("suite %q: %v", suite, err)
		}
	}
	_, err = owtp.New(owtp.NodeConfig{})
	wantErr(t, err, "certificate")
}

func TestBadAddresses(t *testing.T) {
	n := randomNode(t)
	for _, addr := range []string{"", "host", "host:", "host:port:more", "host:99999", "host:-1", "http://host:80", "ws://x:1", "[::1", "host:nonesuchport", "\x00:1:"} {
		for _, connect := range []string{owtp.HTTP, owtp.Websocket} {
			wantErr(t, n.Connect("x", owtp.ConnectConfig{Address: addr, ConnectType: connect}), "owtp: address")
			wantErr(t, n.Listen(owtp.ConnectConfig{Address: addr, ConnectType: connect}), "owtp: address")
		}
	}
	wantErr(t, n.Connect("x", owtp.ConnectConfig{ConnectType: owtp.Memory}), "Address is empty")
	for _, name := range []string{"", strings.Repeat("n", 256), "\xff", "anon:x"} {
		if err := n.Connect(name, owtp.ConnectConfig{Address: ":1", ConnectType: owtp.HTTP}); err == nil || len(err.Error()) > 200 {
			t.Errorf("the peer's name %.10q: %v", name, err)
		}
	}
}

func TestBadPortInUse(t *testing.T) {
	for _, connect := range []string{owtp.HTTP, owtp.Websocket, owtp.Memory} {
		s := newStage(t, way{connect: connect})
		must(t, s.host.HandleFunc("echo", echo))
		for _, n := range []*owtp.OWTPNode{s.host, randomNode(t)} {
			err := n.Listen(s.listen)
			wantErr(t, err, s.listen.Address)
			if connect != owtp.Memory && !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("%s: %v", connect, err)
			}
		}
		s.connect(t)
		answer(t, s.client, "testhost", "echo", 1)
	}
}

func TestBadNamesListTheKnown(t *testing.T) {
	n := randomNode(t)
	for _, bad := range []string{"", "carrier pigeon", strings.Repeat("x", 1<<16)} {
		err := n.Listen(owtp.ConnectConfig{Address: ":0", ConnectType: bad})
		wantErr(t, err, "connect type", owtp.HTTP, owtp.Websocket, owtp.Memory)
		wantErr(t, n.Connect("x", owtp.ConnectConfig{Address: ":1", ConnectType: bad}), "connect type", owtp.HTTP, owtp.Websocket, owtp.Memory)
		if len(err.Error()) > 300 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	}
	wantErr(t, n.Listen(owtp.ConnectConfig{Address: ":0", ConnectType: owtp.HTTP, Suites: []string{"rc4"}}), "Suites", "rc4", "aes", "sm4")
	wantErr(t, n.Listen(owtp.ConnectConfig{Address: ":0", ConnectType: owtp.HTTP, DataFormat: "xml"}), "xml", "json")
	_, err := owtp.NewSessionManager("papyrus", &session.ManagerConfig{})
	wantErr(t, err, "papyrus", "memory")
}

func TestBadHandleFunc(t *testing.T) {
	n := randomNode(t)
	must(t, n.HandleFunc("taken", echo))
	must(t, n.HandleFunc(strings.Repeat("m", 128), echo))
	for name, c := range map[string]struct {
		method  string
		handler owtp.HandlerFunc
		says    string
	}{
		"empty": {"", echo, "empty"}, "nil": {"m", nil, "nil"}, "taken": {"taken", echo, "taken"},
		"owtp.": {"owtp.ping", echo, "reserved"}, "internal_": {"internal_x", echo, "reserved"},
		"long": {strings.Repeat("m", 129), echo, "128"}, "huge": {strings.Repeat("m", 10<<20), echo, "128"},
		"control": {"a\nb", echo, "printable"}, "invalid UTF-8": {"\xff", echo, "printable"},
	} {
		err := n.HandleFunc(c.method, c.handler)
		wantErr(t, err, c.says)
		if len(err.Error()) > 1000 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
}

// A broken configuration is every method's error and no method's panic.
func TestBadNodeConfig(t *testing.T) {
	good := owtp.NewRandomCertificate()
	for name, c := range map[string]struct {
		cfg  owtp.NodeConfig
		says string
	}{
		"no certificate": {owtp.NodeConfig{}, "certificate"},
		"timeout":        {owtp.NodeConfig{Cert: good, TimeoutSEC: -1}, "TimeoutSEC"},
		"long timeout":   {owtp.NodeConfig{Cert: good, TimeoutSEC: 86401}, "TimeoutSEC"},
		"window":         {owtp.NodeConfig{Cert: good, Window: time.Hour}, "Window"},
		"queue time":     {owtp.NodeConfig{Cert: good, MaxQueueTime: -1}, "MaxQueueTime"},
		"trust":          {owtp.NodeConfig{Cert: good, Trust: 9}, "Trust"},
		"store key":      {owtp.NodeConfig{Cert: good, StoreKey: []byte("short")}, "StoreKey"},
		"limit":          {owtp.NodeConfig{Cert: good, Limits: owtp.Limits{MaxConns: -1}}, "MaxConns"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := owtp.New(c.cfg); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("New: %v", err)
			}
			n, ctx := owtp.NewNode(c.cfg), background(t)
			cfg := owtp.ConnectConfig{Address: ":0", ConnectType: owtp.HTTP}
			second := func(_ any, err error) error { return err }
			for method, err := range map[string]error{
				"Listen": n.Listen(cfg), "ListenContext": n.ListenContext(ctx, cfg), "Connect": n.Connect("x", cfg), "ConnectContext": n.ConnectContext(ctx, "x", cfg),
				"HandleFunc": n.HandleFunc("m", echo), "SetPeerstore": n.SetPeerstore(nil), "KeyAgreement": n.KeyAgreement("x", "aes"),
				"KeyAgreementContext": n.KeyAgreementContext(ctx, "x", "aes"), "Call": n.Call("x", "m", nil, true, nil), "CallSync": second(n.CallSync("x", "m", nil)),
				"CallContext": second(n.CallContext(ctx, "x", "m", nil, nil)), "Notify": n.Notify(ctx, "x", "m", nil), "ConnectAndCall": n.ConnectAndCall("x", cfg, "m", nil, true, nil),
				"Ping": second(n.Ping(ctx, "x")), "Identify": second(n.Identify(ctx, cfg)), "Bindings": second(n.Bindings(ctx)), "PinPeer": n.PinPeer(ctx, "x", good.ID()),
				"ForgetPeer": n.ForgetPeer(ctx, "x"), "HTTPHandler": second(n.HTTPHandler(cfg)), "WebsocketHandler": second(n.WebsocketHandler(cfg)),
				"Shutdown": n.Shutdown(ctx), "Close": n.Close(),
			} {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%s: %v", method, err)
				}
			}
			n.Use(nil)
			n.HandlePrepareFunc(echo)
			n.HandleFinishFunc(echo)
			n.SetOpenHandler(nil)
			n.SetCloseHandler(nil)
			n.SetReloadPeerInfoHandler(nil)
			n.ClosePeer("x")
			n.CloseListener(owtp.HTTP)
			if n.Listening(owtp.HTTP) || n.ListenerAddr(owtp.HTTP) != "" || n.IsConnectPeer("x") || n.GetOnlinePeer("x") != nil || len(n.OnlinePeers()) != 0 || n.NodeID() != "" || n.Peerstore() != nil {
				t.Error("a broken node pretends to have something")
			}
			n.Certificate()
		})
	}
}

func TestBadOtherRole(t *testing.T) {
	n := randomNode(t)
	addr := owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.HTTP}
	for field, set := range map[string]func(*owtp.ConnectConfig){
		"AllowPeers": func(c *owtp.ConnectConfig) { c.AllowPeers = []string{} }, "Authorize": func(c *owtp.ConnectConfig) { c.Authorize = func(string, string) error { return nil } },
		"TrustedProxies": func(c *owtp.ConnectConfig) { c.TrustedProxies = []string{"10.0.0.1"} }, "AllowedOrigins": func(c *owtp.ConnectConfig) { c.AllowedOrigins = []string{"https://x"} },
		"AllowedHosts": func(c *owtp.ConnectConfig) { c.AllowedHosts = []string{"x"} },
	} {
		cfg := addr
		set(&cfg)
		wantErr(t, n.Connect("x", cfg), field)
	}
	cfg := addr
	cfg.PeerID = n.NodeID()
	wantErr(t, n.Listen(cfg), "PeerID")
}

// A rawStage is a listening node with an honest client and its address for who
// sends octets of his own.
type rawStage struct {
	*stage
	base string
}

func newRawStage(t testing.TB, connect string, setups ...setup) *rawStage {
	t.Helper()
	s := newStage(t, way{connect: connect}, setups...)
	must(t, s.host.HandleFunc("echo", echo))
	s.connect(t)
	return &rawStage{s, s.listen.Address}
}

// honest makes sure that another peer's call works.
func (s *rawStage) honest(t testing.TB) {
	t.Helper()
	if r := answer(t, s.client, "testhost", "echo", "honest"); r.JsonData().String() != "honest" {
		t.Fatalf("an honest peer is answered %+v", r)
	}
}

const jsonType, binaryType = "application/owtp+json", "application/owtp"

// post sends one HTTP request and returns status and body.
func (s *rawStage) post(t testing.TB, contentType, body string, change ...func(*http.Request)) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(background(t), http.MethodPost, "http://"+s.base+"/", strings.NewReader(body))
	must(t, err)
	req.Header.Set("Content-Type", contentType)
	for _, f := range change {
		f(req)
	}
	tr := &http.Transport{DisableKeepAlives: true, ExpectContinueTimeout: patience}
	if len(body) > 32<<10 {
		// A body that nobody wants is then not sent, which could cost the answer.
		req.Header.Set("Expect", "100-continue")
	}
	resp, err := tr.RoundTrip(req)
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(b)
}

// packet is a request as curl would send it, with some members replaced.
func packet(change ...string) string {
	members := []string{"v", `2`, "r", `1`, "m", `"echo"`, "n", `"` + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef")) + `"`, "d", `"x"`}
	for i := 0; i < len(change); i += 2 {
		if j := slices.Index(members, change[i]); j >= 0 && j%2 == 0 {
			members[j+1] = change[i+1]
		} else {
			members = append(members, change[i], change[i+1])
		}
	}
	var b strings.Builder
	for i := 0; i < len(members); i += 2 {
		if members[i+1] != "" {
			fmt.Fprintf(&b, `,%q:%s`, members[i], members[i+1])
		}
	}
	return "{" + strings.TrimPrefix(b.String(), ",") + "}"
}

func malformedPackets() map[string]string {
	bad := map[string]string{
		"not JSON": "hello", "half an object": packet()[:20], "an array": "[" + packet() + "]", "a number": "17", "trailing octets": packet() + "x", "two packets": packet() + packet(),
		"too deep": packet("d", strings.Repeat("[", 100)+strings.Repeat("]", 100)), "very deep": packet("d", strings.Repeat("[", 1_000_000)),
		"unknown version": packet("v", "3"), "version 1": packet("v", "1"), "no version": packet("v", ""), "unknown kind": packet("r", "99"), "kind 0": packet("r", "0"), "no kind": packet("r", ""),
		"missing nonce": packet("n", ""), "short nonce": packet("n", `"AAAA"`), "zero nonce": packet("n", `"AAAAAAAAAAAAAAAAAAAAAA=="`),
		"no method": packet("m", ""), "empty method": packet("m", `""`), "method of 10 MB": packet("m", `"`+strings.Repeat("m", 10<<20)+`"`), "method of 200 bytes": packet("m", `"`+strings.Repeat("m", 200)+`"`),
		"control in the method": packet("m", `"a\u0000b"`), "duplicate member": strings.TrimSuffix(packet(), "}") + `,"m":"echo"}`, "duplicate in the data": packet("d", `{"a":1,"a":2}`),
		"escaped duplicate in the data": packet("d", `{"a":1,"\u0061":2}`), "invalid UTF-8": packet("d", "\"\xff\""), "invalid UTF-8 in the method": packet("m", "\"\xff\""),
		"lone surrogate": packet("d", `"\ud800"`), "unknown member": packet("z", "1"), "long member": packet("data", "1"), "signature without key": packet("s", `"AAAA"`),
	}
	for _, member := range []string{"v", "r", "m", "n", "c", "t", "f", "l", "w", "x", "k", "i", "e", "q", "o", "p", "b", "u", "g", "y", "h", "s"} {
		for _, value := range []string{"null", "true", "[]", `{"a":1}`, "1.5", "-1", "1e3", `"\u00ff"`} {
			switch {
			case value == `"\u00ff"` && strings.Contains("mfwbg", member): // text: any string
			case value == "-1" && member == "x":
			default:
				bad["wrong type of "+member+": "+value] = packet(member, value)
			}
		}
	}
	return bad
}

func TestBadPacketsOverHTTP(t *testing.T) {
	s := newRawStage(t, owtp.HTTP)
	if st, body := s.post(t, jsonType, packet()); st != 200 || !strings.Contains(body, `"d":"x"`) {
		t.Fatalf("what curl would send is answered %d %s", st, body)
	}
	for name, body := range malformedPackets() {
		want := http.StatusBadRequest
		if len(body) > 4<<20 {
			want = http.StatusRequestEntityTooLarge
		}
		if st, text := s.post(t, jsonType, body); st != want || len(text) > 300 || strings.Count(text, "\n") != 1 {
			t.Errorf("%s: %d %.300q, want %d", name, st, text, want)
		}
	}
	s.honest(t)
	header := string([]byte{wire.Version})
	for name, body := range map[string]string{
		"one octet": "\x02", "unknown type": header + "\x63", "type 0": header + "\x00", "version 9": "\x09\x03", "empty record": header + "\x03", "junk record": header + "\x03junk",
		"junk hello": header + "\x01junk", "empty hello": header + "\x01", "a reply": header + "\x02xx", "sealed record": header + "\x04xxxxxxxxxxxxxxxx", "short seal": header + "\x05x",
		"sealed reply": header + "\x06xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "JSON as binary": packet(), "long hello": header + "\x01" + strings.Repeat("x", 5000),
	} {
		if st, text := s.post(t, binaryType, body); st != http.StatusBadRequest || len(text) > 300 {
			t.Errorf("binary %s: %d %q", name, st, text)
		}
	}
	// One that has the shape of a sealed message is refused as a packet.
	if st, text := s.post(t, binaryType, header+"\x05"+strings.Repeat("s", 200)); st != 200 && st != 400 {
		t.Errorf("invented session: %d %q", st, text)
	}
	for kind, p := range map[string]string{
		"response": packet("r", "2"), "going-away": packet("r", "6", "n", "", "m", "", "d", "", "y", "1"), "open": packet("r", "7", "n", "", "m", "", "d", ""),
	} {
		if st, text := s.post(t, jsonType, p); st != 200 && st != 400 || strings.Contains(text, `"u":"200"`) || st == 200 && !strings.Contains(text, `"u":"400"`) {
			t.Errorf("a %s as a request: %d %s", kind, st, text)
		}
	}
	s.honest(t)
}

func TestBadHTTPRequests(t *testing.T) {
	s := newRawStage(t, owtp.HTTP, hostLimits(owtp.Limits{MaxMessage: 64 << 10, BodyTimeout: 300 * time.Millisecond, MaxHeader: 8 << 10}))
	for name, c := range map[string]struct {
		contentType, body string
		change            func(*http.Request)
		want              int
	}{
		"GET":                {jsonType, "", func(r *http.Request) { r.Method, r.Body = http.MethodGet, nil }, 405},
		"PUT":                {jsonType, packet(), func(r *http.Request) { r.Method = http.MethodPut }, 405},
		"empty body":         {jsonType, "", func(*http.Request) {}, 400},
		"wrong content type": {"application/json", packet(), func(*http.Request) {}, 415},
		"form":               {"application/x-www-form-urlencoded", packet(), func(*http.Request) {}, 415},
		"no content type":    {jsonType, packet(), func(r *http.Request) { r.Header.Del("Content-Type") }, 415},
		"two content types":  {jsonType, packet(), func(r *http.Request) { r.Header.Add("Content-Type", jsonType) }, 415},
		"encoded":            {jsonType, packet(), func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, 415},
		"foreign Origin":     {jsonType, packet(), func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, 403},
		"null Origin":        {jsonType, packet(), func(r *http.Request) { r.Header.Set("Origin", "null") }, 403},
		"rebound Host":       {jsonType, packet(), func(r *http.Request) { r.Host = "evil.example" }, 403},
		"too large":          {jsonType, packet("d", `"`+strings.Repeat("x", 64<<10)+`"`), func(*http.Request) {}, 413},
		"large header":       {jsonType, packet(), func(r *http.Request) { r.Header.Set("X-Large", strings.Repeat("x", 64<<10)) }, 431},
	} {
		if st, text := s.post(t, c.contentType, c.body, c.change); st != c.want {
			t.Errorf("%s: %d %q, want %d", name, st, text, c.want)
		}
		s.honest(t)
	}
	t.Run("slow body", func(t *testing.T) {
		conn, err := net.Dial("tcp", s.base)
		must(t, err)
		defer conn.Close()
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: 100\r\n\r\n{", jsonType)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestTimeout {
			t.Errorf("status %d", resp.StatusCode)
		}
		s.honest(t)
	})
}

func TestAllowedOriginsAndHosts(t *testing.T) {
	host := randomNode(t)
	must(t, host.HandleFunc("echo", echo))
	must(t, host.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.HTTP, AllowedOrigins: []string{"https://wallet.example"}, AllowedHosts: []string{"node.example"}}))
	s := &rawStage{&stage{}, host.ListenerAddr(owtp.HTTP)}
	for name, c := range map[string]struct {
		change func(*http.Request)
		want   int
	}{
		"allowed Origin": {func(r *http.Request) { r.Header.Set("Origin", "https://wallet.example") }, 200},
		"other Origin":   {func(r *http.Request) { r.Header.Set("Origin", "https://wallet.example:444") }, 403},
		"allowed Host":   {func(r *http.Request) { r.Host = "node.example" }, 200},
		"other Host":     {func(r *http.Request) { r.Host = "x.node.example" }, 403},
	} {
		if st, text := s.post(t, jsonType, packet(), c.change); st != c.want {
			t.Errorf("%s: %d %q", name, st, text)
		}
	}
}

// dialWS opens a WebSocket to the listener.
func (s *rawStage) dialWS(t testing.TB, header http.Header) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	host := header.Get("Host")
	header.Del("Host")
	tr := &http.Transport{}
	c, resp, err := websocket.Dial(background(t), "ws://"+s.base+"/", &websocket.DialOptions{HTTPHeader: header, Host: host, HTTPClient: &http.Client{Transport: tr}})
	t.Cleanup(tr.CloseIdleConnections)
	if err == nil {
		c.SetReadLimit(1 << 20)
		t.Cleanup(func() { c.CloseNow() })
	}
	return c, resp, err
}

func (s *rawStage) openWS(t testing.TB) *websocket.Conn {
	t.Helper()
	c, _, err := s.dialWS(t, http.Header{})
	must(t, err)
	return c
}

const openPacket = `{"v":2,"r":7}`

// ends reads until the server hangs up and returns what came before.
func ends(t testing.TB, c *websocket.Conn) (said string) {
	t.Helper()
	for {
		_, b, err := c.Read(background(t))
		if err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the server did not hang up; it said %q", said)
			}
			return said
		}
		said += string(b)
	}
}

func TestBadPacketsOverWebSocket(t *testing.T) {
	s := newRawStage(t, owtp.Websocket)
	send := func(c *websocket.Conn, typ websocket.MessageType, body string) {
		_ = c.Write(background(t), typ, []byte(body)) // the server may hang up before the end
	}
	bad := malformedPackets()
	delete(bad, "two packets") // several packets in one message are right here
	// As the first message and after a good one.
	var all sync.WaitGroup
	gate := make(chan struct{}, 8)
	for name, body := range bad {
		all.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			c := s.openWS(t)
			send(c, websocket.MessageText, body)
			said := ends(t, c)
			if len(body) <= 4<<20 && !strings.Contains(said, `"u":"400"`) {
				t.Errorf("%s, first: the server said %q", name, said)
			}
			c = s.openWS(t)
			send(c, websocket.MessageText, openPacket)
			send(c, websocket.MessageText, body)
			if said := ends(t, c); !strings.HasPrefix(said, openPacket) {
				t.Errorf("%s, second: the server said %q", name, said)
			}
		})
	}
	all.Wait()
	s.honest(t)
	for name, play := range map[string]func(c *websocket.Conn){
		"a request first": func(c *websocket.Conn) { send(c, websocket.MessageText, packet()) },
		"binary where text is due": func(c *websocket.Conn) {
			send(c, websocket.MessageText, openPacket)
			send(c, websocket.MessageBinary, "\x02\x03")
		},
		"text in a binary message": func(c *websocket.Conn) { send(c, websocket.MessageBinary, openPacket) },
		"unknown type":             func(c *websocket.Conn) { send(c, websocket.MessageBinary, "\x02\x63") },
		"a sealed record at once":  func(c *websocket.Conn) { send(c, websocket.MessageBinary, "\x02\x04xxxxxxxxxxxxxxxxxxxxxxxxxxxx") },
		"open twice": func(c *websocket.Conn) {
			send(c, websocket.MessageText, openPacket)
			send(c, websocket.MessageText, openPacket)
		},
		"an empty message": func(c *websocket.Conn) {
			send(c, websocket.MessageText, openPacket)
			send(c, websocket.MessageText, "")
		},
		"an unknown goodbye": func(c *websocket.Conn) {
			send(c, websocket.MessageText, openPacket)
			send(c, websocket.MessageText, `{"v":2,"r":6,"y":9}`)
		},
		"a message over the limit": func(c *websocket.Conn) {
			send(c, websocket.MessageText, packet("d", `"`+strings.Repeat("x", 5<<20)+`"`))
		},
		"hanging up in the midst":    func(c *websocket.Conn) { send(c, websocket.MessageText, openPacket); c.CloseNow() },
		"a hello of the wrong shape": func(c *websocket.Conn) { send(c, websocket.MessageBinary, "\x02\x01junk") },
	} {
		t.Run(name, func(t *testing.T) {
			c := s.openWS(t)
			play(c)
			ends(t, c)
			s.honest(t)
		})
	}
}

// A reply that nobody waits for, a cancel of nothing and a pong that nobody
// asked for change nothing, and the connection goes on.
func TestUnaskedPacketsAreIgnored(t *testing.T) {
	s := newRawStage(t, owtp.Websocket)
	c := s.openWS(t)
	nonce := func(i int) string {
		return `"` + base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%016d", i)) + `"`
	}
	send := func(p string) { must(t, c.Write(background(t), websocket.MessageText, []byte(p))) }
	send(openPacket)
	send(packet("r", "2", "n", nonce(1), "u", `"200"`)) // reply
	send(packet("r", "4", "n", nonce(2), "m", "", "d", ""))
	send(packet("r", "5", "n", nonce(3), "m", "", "d", "", "y", "4"))
	send(packet("r", "3", "n", nonce(4), "m", `"absent"`)) // one-way to nobody
	send(packet("n", nonce(5)))
	_, b, err := c.Read(background(t))
	must(t, err)
	if string(b) == openPacket {
		_, b, err = c.Read(background(t))
		must(t, err)
	}
	if !strings.Contains(string(b), nonce(5)) || !strings.Contains(string(b), `"d":"x"`) {
		t.Errorf("the server answered %s", b)
	}
	s.honest(t)
}

// Who sends nothing, or half of something, is cut off by the handshake's and
// the message's timeouts and by the heartbeat.
func TestSilenceAndHalves(t *testing.T) {
	limits := owtp.Limits{HandshakeTimeout: 300 * time.Millisecond, BodyTimeout: 300 * time.Millisecond, Heartbeat: 300 * time.Millisecond}
	s := newRawStage(t, owtp.Websocket, hostLimits(limits))
	hungUp := func(t *testing.T, conn net.Conn) {
		t.Helper()
		conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, context.DeadlineExceeded) || errors.As(err, new(net.Error)) && err.(net.Error).Timeout() {
			t.Error("the server did not hang up")
		}
	}
	const upgrade = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
	for name, sent := range map[string]string{
		"nothing at all": "", "half a header": "GET / HT", "half an upgrade": upgrade[:80], "an upgrade and nothing": upgrade,
		"half a frame header": upgrade + "\x81", "half a frame": upgrade + "\x81\xfe\x01\x00\x00\x00\x00\x00{\"v\"", "an unmasked frame": upgrade + "\x81\x02{}", "reserved bits": upgrade + "\xf1\x80\x00\x00\x00\x00",
		"a text frame and silence": upgrade + "\x81\x8d\x00\x00\x00\x00" + openPacket,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", s.base)
			must(t, err)
			defer conn.Close()
			_, err = io.WriteString(conn, sent)
			must(t, err)
			hungUp(t, conn)
			s.honest(t)
		})
	}
}

func TestBadWebSocketUpgrades(t *testing.T) {
	s := newRawStage(t, owtp.Websocket)
	for name, c := range map[string]struct {
		header http.Header
		want   int
	}{
		"foreign Origin": {http.Header{"Origin": {"https://evil.example"}}, 403},
		"own Origin":     {http.Header{"Origin": {"http://" + s.base}}, 403},
		"rebound Host":   {http.Header{"Host": {"evil.example"}}, 403},
	} {
		_, resp, err := s.dialWS(t, c.header)
		if err == nil || resp == nil || resp.StatusCode != c.want {
			t.Errorf("%s: %v %v", name, resp, err)
		}
		s.honest(t)
	}
	if st, _ := s.post(t, jsonType, packet()); st != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", st)
	}
	if st, _ := s.post(t, jsonType, "", func(r *http.Request) { r.Method, r.Body = http.MethodGet, nil }); st != http.StatusUpgradeRequired {
		t.Errorf("GET without an upgrade: %d", st)
	}
	s.honest(t)
}

// What a listener demands is said before routing: strangers cannot list
// methods.
func TestDemandsComeBeforeRouting(t *testing.T) {
	for _, m := range media {
		for _, c := range []struct {
			sign, seal bool
			want       uint64
		}{{true, false, owtp.ErrUnauthorized}, {false, true, owtp.ErrSecretKeyInvalid}, {true, true, owtp.ErrUnauthorized}} {
			t.Run(fmt.Sprintf("%s/sign=%v,seal=%v", m.name, c.sign, c.seal), func(t *testing.T) {
				host, client := newBank(t, owtp.NodeConfig{}), randomNode(t)
				must(t, host.HandleFunc("echo", echo))
				dial := host.at(host.listen(t, m, guard{sign: c.sign, seal: c.seal}), m, inOpen)
				must(t, client.Connect("open", dial))
				var said [2]string
				for i, method := range []string{"echo", "absent"} {
					r, err := client.CallSync("open", method, 1)
					if err == nil {
						err = r.Err()
					}
					var e *owtp.Error
					if !errors.As(err, &e) || e.Status != c.want {
						t.Fatalf("%s: %v", method, err)
					}
					said[i] = e.Msg
				}
				if said[0] != said[1] {
					t.Errorf("strangers can tell methods apart: %q", said)
				}
				dial.EnableSignature, dial.EnableKeyAgreement = c.sign, c.seal
				must(t, client.Connect("right", dial))
				answer(t, client, "right", "echo", 1)
			})
		}
	}
}

func TestOpenModeOffLoopbackIsLogged(t *testing.T) {
	for _, c := range []struct {
		cfg  owtp.ConnectConfig
		warn bool
	}{
		{owtp.ConnectConfig{Address: "0.0.0.0:0", ConnectType: owtp.HTTP}, true},
		{owtp.ConnectConfig{Address: ":0", ConnectType: owtp.Websocket}, true},
		{owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.HTTP}, false},
		{owtp.ConnectConfig{Address: ":0", ConnectType: owtp.HTTP, EnableSignature: true}, false},
		{owtp.ConnectConfig{Address: ":0", ConnectType: owtp.Websocket, EnableKeyAgreement: true}, false},
	} {
		var book logBook
		n := startNode(t, owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Logger: book.logger()})
		must(t, n.Listen(c.cfg))
		if got := strings.Contains(book.text(), "level=WARN") && strings.Contains(book.text(), "open mode"); got != c.warn {
			t.Errorf("%v: warning %v, want %v", c.cfg, got, c.warn)
		}
	}
}

// The limits of a whole node and the largest message, from the caller's view.
func TestBadAmountsOverEveryWay(t *testing.T) {
	eachWay(t, someWays(), func(t *testing.T, w way) {
		s := newStage(t, w, func(h, c *owtp.NodeConfig) {
			h.Limits = owtp.Limits{MaxMessage: 100 << 10, MaxRequests: 1}
		})
		sl := newSleeper(t)
		must(t, s.host.HandleFunc("sleep", sl.handle))
		must(t, s.host.HandleFunc("echo", echo))
		s.connect(t)
		o := newOutcomes()
		must(t, s.client.Call("testhost", "sleep", nil, false, o.callback))
		within(t, sl.began, "the handler")
		if r := answer(t, s.client, "testhost", "echo", 1); r.Status != owtp.ErrTooManyRequests {
			t.Errorf("over MaxRequests: %+v", r)
		}
		sl.wake()
		o.once(t, owtp.StatusSuccess)
		// The client may send more than this server takes.
		_, err := s.client.CallSync("testhost", "echo", strings.Repeat("x", 200<<10))
		if st := owtp.StatusOf(err); st != owtp.ErrTooLarge && st != owtp.ErrNetworkDisconnected {
			t.Errorf("over MaxMessage: %v", err)
		}
		eventually(t, "the next call passes", func() bool {
			r, err := s.client.CallContext(background(t), "testhost", "echo", 1, &owtp.CallOptions{Timeout: time.Second})
			return err == nil && r.OK()
		})
	})
}

// An Authorize that panics refuses, and the node lives on.
func TestBadAuthorizePanics(t *testing.T) {
	for _, m := range media {
		t.Run(m.name, func(t *testing.T) {
			good := randomNode(t)
			host := newBank(t, owtp.NodeConfig{})
			must(t, host.HandleFunc("echo", echo))
			must(t, host.Listen(owtp.ConnectConfig{Address: m.listenAddr(), ConnectType: m.name, EnableSignature: true, Authorize: func(id, _ string) error {
				if id != good.NodeID() {
					panic("a stranger")
				}
				return nil
			}}))
			dial := host.at(host.ListenerAddr(m.name), m, inSigned)
			wantStatus(t, randomNode(t).Connect("testhost", dial), owtp.ErrUnauthorized) // as strangers whom it refuses
			must(t, good.Connect("testhost", dial))
			answer(t, good, "testhost", "echo", 1)
		})
	}
}
