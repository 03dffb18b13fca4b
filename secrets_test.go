package owtp_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mr-tron/base58"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/session/memory"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// A searcher knows secrets in all the forms in which octets get into text.
type searcher struct {
	forms map[string]string // text by the secret's name
}

func (s *searcher) text(name, secret string) {
	if len(secret) < 8 {
		panic("too short to look for: " + name)
	}
	if s.forms == nil {
		s.forms = make(map[string]string)
	}
	s.forms[name] = secret
	s.forms[name+" in hex"] = hex.EncodeToString([]byte(secret))
	s.forms[name+" in HEX"] = strings.ToUpper(hex.EncodeToString([]byte(secret)))
	s.forms[name+" quoted"] = strings.Trim(fmt.Sprintf("%q", secret), `"`)
}

// octets looks for parts as well, since text may be cut, and one end of base64
// depends on what stands before it.
func (s *searcher) octets(name string, secret []byte) {
	s.text(name, string(secret))
	s.text(name+", a part", string(secret[8:24]))
	s.forms[name+" in base58"] = base58.Encode(secret)
	s.forms[name+" as a number"] = new(big.Int).SetBytes(secret).String()
	for shift := range 3 {
		cut := secret[shift : shift+18]
		s.forms[fmt.Sprint(name, " in base64 from ", shift)] = base64.RawStdEncoding.EncodeToString(cut)
		s.forms[fmt.Sprint(name, " in URL base64 from ", shift)] = base64.RawURLEncoding.EncodeToString(cut)
	}
	part := secret[4:12]
	s.forms[name+" as a list"] = strings.Trim(fmt.Sprint(part), "[]")
	s.forms[name+" in Go's form"] = strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", part), "[]byte{"), "}")
	s.forms[name+" as numbers with commas"] = strings.ReplaceAll(strings.Trim(fmt.Sprint(part), "[]"), " ", ",")
}

// find returns the names of what stands in text.
func (s *searcher) find(text string) (found []string) {
	for name, form := range s.forms {
		if strings.Contains(text, form) {
			found = append(found, name)
		}
	}
	return found
}

// TestSecretsSearch proves that the search finds what it is for.
func TestSecretsSearch(t *testing.T) {
	cert := owtp.NewRandomCertificate()
	key := cert.PrivateKeyBytes()
	var s searcher
	s.octets("key", key)
	s.text("word", "correct horse battery")
	private, _ := cert.KeyPair()
	for _, text := range []string{
		string(key), fmt.Sprint(key), fmt.Sprintf("%x", key), fmt.Sprintf("%X", key), fmt.Sprintf("%#v", key), fmt.Sprintf("%q", key), private,
		base64.StdEncoding.EncodeToString(key), base64.RawURLEncoding.EncodeToString(append([]byte("x"), key...)), base64.StdEncoding.EncodeToString(append([]byte("xy"), key...)),
		fmt.Sprint(new(big.Int).SetBytes(key)), fmt.Sprintf("%v", [32]byte(key)), "a correct horse battery b", fmt.Sprintf("%x", "a correct horse battery b"),
	} {
		if s.find("before "+text+" after") == nil {
			t.Errorf("not found in %.80q", text)
		}
	}
	if found := s.find(cert.ID() + fmt.Sprint(cert)); found != nil {
		t.Errorf("found in a node ID: %v", found)
	}
}

// A book keeps everything that nodes and callers print.
type book struct {
	logBook
	mu      sync.Mutex
	printed int
}

// print writes a thing under every verb and through a logger.
func (b *book) print(what string, things ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, v := range things {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&b.logBook, what+" "+verb+"\n", v)
		}
		slog.New(slog.NewJSONHandler(&b.logBook, &slog.HandlerOptions{Level: slog.LevelDebug})).Info(what, "thing", v)
		b.logger().Info(what, "thing", v)
		b.printed++
	}
}

// err prints an error and all that it wraps.
func (b *book) err(what string, err error) {
	for ; err != nil; err = errors.Unwrap(err) {
		b.print(what, err)
	}
}

// A keepsake is what a program may have a node in and print: fmt calls no method
// of what is not exported, and follows a pointer where the verb does not fit.
type keepsake struct{ node *owtp.OWTPNode }

// Nothing that a node logs at any level, no error and nothing that is printed
// shows a private key, the store key, a session's secret, a password, or the
// plaintext of a sealed call, whatever goes wrong.
func TestSecretsStayInside(t *testing.T) {
	eachWay(t, allWays(), func(t *testing.T, w way) {
		var out book
		var secrets searcher
		var hostCert, clientCert = owtp.NewRandomCertificate(), owtp.NewRandomCertificate()
		hostKey, clientKey := []byte("\x91store key of the host, 32 octet\xfe"), []byte("\x92store key of client, 32 octets\xfd!")
		hostKey, clientKey = hostKey[:32], clientKey[:32]
		secrets.octets("host's private key", hostCert.PrivateKeyBytes())
		secrets.octets("client's private key", clientCert.PrivateKeyBytes())
		secrets.octets("host's store key", hostKey)
		secrets.octets("client's store key", clientKey)
		const password = "correct-horse-battery-staple"
		secrets.text("password", password)
		for _, word := range []string{"sealed-params-3d1", "sealed-result-9ab", "sealed-meta-77c", "sealed-message-5e0", "session-value-41f"} {
			secrets.text(word, word)
		}
		previous := []byte("\x93the key before it, of 32 octets")[:32]
		secrets.octets("previous store key", previous)
		secrets.octets("derived store key", hostCert.DerivedStoreKey())
		hostCfg := owtp.NodeConfig{Cert: hostCert, StoreKey: hostKey, PreviousStoreKey: previous, Logger: out.logger(), Limits: owtp.Limits{MaxRequestsPerPeer: 8, HandshakeTimeout: 5 * time.Second}}
		clientCfg := owtp.NodeConfig{Cert: clientCert, StoreKey: clientKey, Logger: out.logger(), Limits: owtp.Limits{HandshakeTimeout: 5 * time.Second, MaxReconnectDelay: 50 * time.Millisecond}}
		store := newMemory(t, memory.Options{})
		hostCfg.Store = store
		s := newStage(t, w, func(h, c *owtp.NodeConfig) { *h, *c = hostCfg, clientCfg })
		m := media[slices.IndexFunc(media, func(m medium) bool { return m.name == w.connect })]
		p := transporttest.NewProxy(t, m.tr, roomy(m.listenAddr()), roomy(s.listen.Address))
		s.dial.Address, s.dial.Account, s.dial.Password = p.Addr(), "somebody", password
		handle := func(method string, f owtp.HandlerFunc) { must(t, s.host.HandleFunc(method, f)) }
		handle("answer", func(c *owtp.Context) {
			if c.Proved() {
				_ = c.SetSession("k", "session-value-41f")
			}
			out.print("context", c, *c, c.Peer, *c.Peer, c.Node(), c.Context())
			c.Response(map[string]string{"is": "sealed-result-9ab"}, 0, "sealed-message-5e0")
		})
		handle("refuse", func(c *owtp.Context) { c.Response("sealed-result-9ab", 700, "no, says the application") })
		handle("panic", func(c *owtp.Context) { panic("the program's own words") })
		handle("nil map", func(c *owtp.Context) { c.Values = nil; c.Values["a"] = 1 })
		handle("no JSON", func(c *owtp.Context) { c.Response(func() {}, 0, "") })
		handle("large", func(c *owtp.Context) { c.Response(strings.Repeat("sealed-result-9ab", 1<<18), 0, "") })
		handle("slow", func(c *owtp.Context) { sleepOr(c.Context(), patience) })
		s.host.SetOpenHandler(func(n *owtp.OWTPNode, info owtp.PeerInfo) { out.print("opened", n, info, &info) })
		s.host.SetCloseHandler(func(n *owtp.OWTPNode, info owtp.PeerInfo) { out.print("closed", n, info, &info) })
		s.connect(t)

		params := map[string]string{"secret": "sealed-params-3d1"}
		call := func(method string, timeout time.Duration) {
			resp, err := s.client.CallContext(context.Background(), "testhost", method, params,
				&owtp.CallOptions{Timeout: timeout, Meta: map[string]string{"m": "sealed-meta-77c"}})
			out.err(method, err)
			if resp != nil {
				out.err(method, resp.Err()) // the status and the message; the result is what was asked for
			}
		}
		call("answer", patience)
		collect := func() {
			for _, n := range []*owtp.OWTPNode{s.host, s.client} {
				for i, secret := range n.SessionSecrets() {
					secrets.octets(fmt.Sprint("session secret ", i, " of ", n.NodeID()), secret)
				}
			}
		}
		collect()
		if w.exchanges() && w.suite != "" && len(secrets.forms) < 6*14 {
			t.Error("no session secrets were found")
		}
		for _, method := range []string{"refuse", "panic", "nil map", "no JSON", "large", "not there"} {
			call(method, patience)
		}
		call("slow", 30*time.Millisecond)
		_, err := s.client.CallContext(context.Background(), "testhost", "answer", make(chan int), nil)
		out.err("params that do not encode", err)
		_, err = s.client.CallContext(context.Background(), "testhost", "answer", params, &owtp.CallOptions{CallKey: []byte("sealed-params-3d1")})
		out.err("a bad call key", err)

		// Every message is damaged, in both directions, then dropped.
		for _, harm := range []func(f transporttest.Flow) []transport.Message{
			func(f transporttest.Flow) []transport.Message {
				f.Message.Data[len(f.Message.Data)-3] ^= 1
				return pass(f)
			},
			func(f transporttest.Flow) []transport.Message {
				f.Message.Data[len(f.Message.Data)/2] ^= 1
				return pass(f)
			},
			func(f transporttest.Flow) []transport.Message {
				if f.Dir == transporttest.ToClient {
					return []transport.Message{packetAs(transport.Binary, &wire.Packet{Kind: wire.Response, Status: 402, Nonce: wire.Nonce{1}, Data: []byte("null")})}
				}
				return pass(f)
			},
			func(f transporttest.Flow) []transport.Message { return nil },
		} {
			p.OnMessage(harm)
			call("answer", 150*time.Millisecond)
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			out.err("key agreement", s.client.KeyAgreementContext(ctx, "testhost", "sm4"))
			cancel()
			p.OnMessage(nil)
		}
		collect()

		// Who is somebody else, a store that fails, wrong configurations.
		other := startNode(t, owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Logger: out.logger()})
		out.err("wrong peer", other.Connect(clientCert.ID(), s.dial))
		dial := s.dial
		dial.PeerID = clientCert.ID()
		out.err("wrong peer ID", other.Connect("somebody", dial))
		dial.Suites = []string{password}
		out.err("unknown suite", other.Connect("somebody", owtp.ConnectConfig{Address: "user:" + password + "@127.0.0.1:1", ConnectType: owtp.HTTP, EnableSignature: true}))
		_, err = owtp.New(owtp.NodeConfig{Cert: hostCert, StoreKey: hostKey[:31]})
		out.err("a short store key", err)
		private, _ := hostCert.KeyPair()
		_, err = owtp.NewCertificate(private + "1")
		out.err("a damaged private key", err)
		_, err = owtp.NewCertificate(private[:40] + "0OIl")
		out.err("a private key that is no base58", err)
		must(t, store.Close())
		call("answer", 300*time.Millisecond)

		// Not one that works: fmt reads what it changes.
		idle := newNode(t, owtp.NodeConfig{Cert: hostCert, StoreKey: hostKey, PreviousStoreKey: previous})
		out.print("keepsake", keepsake{idle}, &keepsake{idle})
		out.print("things", s.host, s.client, hostCfg, &hostCfg, clientCfg, s.dial, &s.dial, hostCert, &hostCert, []any{hostCfg, s.dial, hostCert})
		for _, n := range []*owtp.OWTPNode{s.host, s.client} {
			for _, peer := range n.OnlinePeers() {
				out.print("peer", peer, *peer, peer.ConnectConfig())
			}
			out.print("certificate", n.Certificate(), n.Peerstore())
		}
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		out.err("shutdown", s.client.Shutdown(ctx))
		cancel()
		out.err("close", s.host.Close())
		call("answer", time.Second)

		text := out.text()
		if out.printed < 40 || !strings.Contains(text, "the program's own words") || !strings.Contains(text, hostCert.ID()) {
			t.Fatalf("%d things were printed: the test does not see what it is about", out.printed)
		}
		for _, name := range secrets.find(text) {
			at := strings.Index(text, secrets.forms[name])
			t.Errorf("%s: ...%.300q", name, text[max(at-150, 0):])
		}
	})
}
