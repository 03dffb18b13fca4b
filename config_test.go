package owtp_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/memory"
)

// everyField runs the case of each field of T. A field without one, and a case
// without a field, fail: whoever adds a field says here what it does.
func everyField[T any](t *testing.T, cases map[string]func(t *testing.T)) {
	t.Helper()
	typ := reflect.TypeFor[T]()
	for i := range typ.NumField() {
		name := typ.Field(i).Name
		if f := cases[name]; f != nil {
			t.Run(name, f)
			delete(cases, name)
		} else {
			t.Errorf("%v.%s has no case here", typ, name)
		}
	}
	for name := range cases {
		t.Errorf("%v has no field %s", typ, name)
	}
}

func TestConfigEveryNodeField(t *testing.T) {
	cert := owtp.NewRandomCertificate()
	refused := func(part string, set func(*owtp.NodeConfig)) func(*testing.T) {
		return func(t *testing.T) {
			cfg := owtp.NodeConfig{Cert: cert}
			set(&cfg)
			_, err := owtp.New(cfg)
			wantErr(t, err, "NodeConfig."+part)
		}
	}
	everyField[owtp.NodeConfig](t, map[string]func(*testing.T){
		"Cert": func(t *testing.T) {
			if n := startNode(t, owtp.NodeConfig{Cert: cert}); n.NodeID() != cert.ID() {
				t.Error("the node has another ID than its certificate")
			}
		},
		"TimeoutSEC": refused("TimeoutSEC", func(c *owtp.NodeConfig) { c.TimeoutSEC = -1 }),
		"Peerstore": func(t *testing.T) {
			store := &mapStore{}
			if n := startNode(t, owtp.NodeConfig{Cert: cert, Peerstore: store}); n.Peerstore() != owtp.Peerstore(store) {
				t.Error("the node has another peerstore")
			}
		},
		"Store": func(t *testing.T) {
			store, err := memory.New(memory.Options{})
			must(t, err)
			defer store.Close()
			must(t, startNode(t, owtp.NodeConfig{Cert: cert, Store: store}).PinPeer(background(t), "a", cert.ID()))
			if store.Len() == 0 {
				t.Error("the binding is not in the store")
			}
			_, err = owtp.New(owtp.NodeConfig{Cert: cert, Store: forgetful{store}})
			wantErr(t, err, "evict")
		},
		"StoreKey": func(t *testing.T) {
			refused("StoreKey", func(c *owtp.NodeConfig) { c.StoreKey = make([]byte, 31) })(t)
			// What one key has sealed another does not open.
			store, err := memory.New(memory.Options{})
			must(t, err)
			defer store.Close()
			must(t, startNode(t, owtp.NodeConfig{Cert: cert, Store: store, StoreKey: bytes.Repeat([]byte{1}, 32)}).PinPeer(background(t), "a", cert.ID()))
			if all, err := startNode(t, owtp.NodeConfig{Cert: cert, Store: store, StoreKey: bytes.Repeat([]byte{2}, 32)}).Bindings(background(t)); err == nil {
				t.Errorf("another key reads %v", all)
			}
		},
		"PreviousStoreKey": func(t *testing.T) {
			for _, key := range [][]byte{make([]byte, 31), {}, make([]byte, 32), cert.DerivedStoreKey()} {
				refused("PreviousStoreKey", func(c *owtp.NodeConfig) { c.PreviousStoreKey = key })(t)
			}
			// What the key before it has sealed opens.
			store, err := memory.New(memory.Options{})
			must(t, err)
			defer store.Close()
			must(t, startNode(t, owtp.NodeConfig{Cert: cert, Store: store}).PinPeer(background(t), "a", cert.ID()))
			n := startNode(t, owtp.NodeConfig{Cert: cert, Store: store, StoreKey: bytes.Repeat([]byte{2}, 32), PreviousStoreKey: cert.DerivedStoreKey()})
			if all, err := n.Bindings(background(t)); err != nil || all["a"] != cert.ID() {
				t.Errorf("with the previous key: %v, %v", all, err)
			}
		},
		"Trust":        refused("Trust", func(c *owtp.NodeConfig) { c.Trust = 7 }),
		"Window":       refused("Window", func(c *owtp.NodeConfig) { c.Window = 6 * time.Minute }),
		"MaxQueueTime": refused("MaxQueueTime", func(c *owtp.NodeConfig) { c.MaxQueueTime = 25 * time.Hour }),
		"Describe": func(t *testing.T) {
			s := newStage(t, way{connect: owtp.Memory}, describes)
			s.connect(t)
			if resp := answer(t, s.client, "testhost", "owtp.describe", nil); !resp.JsonData().Get("methods").IsArray() {
				t.Errorf("it answers %v", resp)
			}
		},
		"Limits": func(t *testing.T) {
			_, err := owtp.New(owtp.NodeConfig{Cert: cert, Limits: owtp.Limits{MaxMessage: 17}})
			wantErr(t, err, "Limits.MaxMessage")
		},
		"Logger": func(t *testing.T) {
			var book logBook
			n := startNode(t, owtp.NodeConfig{Cert: cert, Logger: book.logger()})
			must(t, n.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.HTTP}))
			if !strings.Contains(book.text(), n.NodeID()) {
				t.Errorf("the log is %q", book.text())
			}
		},
	})
}

// forgetful is a store that may evict.
type forgetful struct{ session.Provider }

func (f forgetful) Traits() session.Traits {
	tr := f.Provider.Traits()
	tr.MayEvict = true
	return tr
}

func TestConfigEveryLimit(t *testing.T) {
	typ := reflect.TypeFor[owtp.Limits]()
	for i := range typ.NumField() {
		var l owtp.Limits
		reflect.ValueOf(&l).Elem().Field(i).SetInt(-1)
		_, err := owtp.New(owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Limits: l})
		wantErr(t, err, "Limits."+typ.Field(i).Name, "default")
		if strings.HasSuffix(err.Error(), " 0") || strings.HasSuffix(err.Error(), "0s") && strings.HasSuffix(err.Error(), " 0s") {
			t.Errorf("%s has no default: %v", typ.Field(i).Name, err)
		}
	}
	for name, l := range map[string]owtp.Limits{"MaxMessage": {MaxMessage: 1<<30 + 1}, "SessionLifetime": {SessionLifetime: 25 * time.Hour}} {
		_, err := owtp.New(owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Limits: l})
		wantErr(t, err, "Limits."+name)
	}
}

// otherValue sets a field to something that is right and different.
func otherValue(t *testing.T, c *owtp.ConnectConfig, field string) {
	t.Helper()
	f := reflect.ValueOf(c).Elem().FieldByName(field)
	switch v := f.Interface().(type) {
	case string:
		f.SetString(v + "other")
	case bool:
		f.SetBool(!v)
	case int:
		f.SetInt(int64(v) + 4096)
	case []string:
		f.Set(reflect.ValueOf([]string{"sm4"}))
	default:
		t.Fatalf("%s has the type %T, for which this test has no other value", field, v)
	}
}

func TestConfigEveryConnectField(t *testing.T) {
	host := randomNode(t)
	serverTLS := &tls.Config{}
	must(t, host.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.HTTP}))
	base := owtp.ConnectConfig{Address: host.ListenerAddr(owtp.HTTP), ConnectType: owtp.HTTP}
	client := randomNode(t)
	must(t, client.Connect("testhost", base))
	// Whoever connects with another value gets told so.
	differs := func(field string) func(*testing.T) {
		return func(t *testing.T) {
			cfg := base
			otherValue(t, &cfg, field)
			wantErr(t, client.Connect("testhost", cfg), "another configuration")
		}
	}
	refusedIn := func(listen bool, field string, set func(*owtp.ConnectConfig)) func(*testing.T) {
		return func(t *testing.T) {
			cfg := owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.HTTP}
			set(&cfg)
			if listen {
				wantErr(t, client.Listen(cfg), field)
			} else {
				wantErr(t, client.Connect("x", cfg), field)
			}
		}
	}
	everyField[owtp.ConnectConfig](t, map[string]func(*testing.T){
		"Address":            refusedIn(true, "address", func(c *owtp.ConnectConfig) { c.Address = "x" }),
		"ConnectType":        refusedIn(true, "connect type", func(c *owtp.ConnectConfig) { c.ConnectType = "x" }),
		"EnableSignature":    differs("EnableSignature"),
		"EnableKeyAgreement": differs("EnableKeyAgreement"),
		"Suites":             differs("Suites"),
		"DataFormat":         refusedIn(true, "data format", func(c *owtp.ConnectConfig) { c.DataFormat = "x" }),
		"EnableSSL":          refusedIn(true, "EnableSSL", func(c *owtp.ConnectConfig) { c.EnableSSL = true }),
		"TLS":                refusedIn(true, "TLS", func(c *owtp.ConnectConfig) { c.TLS = serverTLS }),
		"ReadBufferSize":     refusedIn(true, "ReadBufferSize", func(c *owtp.ConnectConfig) { c.ReadBufferSize = -1 }),
		"WriteBufferSize":    refusedIn(true, "WriteBufferSize", func(c *owtp.ConnectConfig) { c.WriteBufferSize = -1 }),
		"PeerID":             refusedIn(false, "PeerID", func(c *owtp.ConnectConfig) { c.PeerID = "x" }),
		"Version":            refusedIn(false, "Version", func(c *owtp.ConnectConfig) { c.Version = 3 }),
		"AllowPeers":         refusedIn(true, "AllowPeers", func(c *owtp.ConnectConfig) { c.AllowPeers = []string{"x"} }),
		"Authorize":          refusedIn(false, "Authorize", func(c *owtp.ConnectConfig) { c.Authorize = func(string, string) error { return nil } }),
		"TrustedProxies":     refusedIn(true, "TrustedProxies", func(c *owtp.ConnectConfig) { c.TrustedProxies = []string{"x"} }),
		"AllowedOrigins":     refusedIn(false, "AllowedOrigins", func(c *owtp.ConnectConfig) { c.AllowedOrigins = []string{"https://x"} }),
		"AllowedHosts":       refusedIn(false, "AllowedHosts", func(c *owtp.ConnectConfig) { c.AllowedHosts = []string{"x"} }),
		"AllowV1":            refusedIn(false, "AllowV1", func(c *owtp.ConnectConfig) { c.AllowV1 = true }),
		"V1Cert":             refusedIn(true, "V1Cert", func(c *owtp.ConnectConfig) { c.V1Cert = owtp.NewRandomCertificate() }),
		"AllowV1Peers":       refusedIn(true, "AllowV1Peers", func(c *owtp.ConnectConfig) { c.AllowV1, c.AllowV1Peers = true, []string{"x"} }),
		"InsecureV1TrustAgreement": refusedIn(true, "InsecureV1TrustAgreement", func(c *owtp.ConnectConfig) {
			c.AllowV1, c.EnableSignature, c.InsecureV1TrustAgreement = true, true, true
		}),
		"InsecureV1BareText":       refusedIn(true, "InsecureV1BareText", func(c *owtp.ConnectConfig) { c.InsecureV1BareText = true }),
		"InsecureV1PacketVersion0": refusedIn(true, "InsecureV1PacketVersion0", func(c *owtp.ConnectConfig) { c.InsecureV1PacketVersion0 = true }),
		"InsecureV1AnyTime":        refusedIn(false, "InsecureV1AnyTime", func(c *owtp.ConnectConfig) { c.InsecureV1AnyTime = true }),
		"Account":                  differs("Account"),
		"Password":                 differs("Password"),
		"Exchange":                 differs("Exchange"),
		"WriteQueueName":           differs("WriteQueueName"),
		"ReadQueueName":            differs("ReadQueueName"),
	})
}

// The caller's configuration is his own: he may change it afterwards.
func TestConfigIsCopied(t *testing.T) {
	key, previous := bytes.Repeat([]byte{7}, 32), bytes.Repeat([]byte{8}, 32)
	store, err := memory.New(memory.Options{})
	must(t, err)
	defer store.Close()
	cert := owtp.NewRandomCertificate()
	n := startNode(t, owtp.NodeConfig{Cert: cert, Store: store, StoreKey: key, PreviousStoreKey: previous})
	must(t, n.PinPeer(background(t), "a", cert.ID()))
	clear(key)
	clear(previous)
	if all, err := n.Bindings(background(t)); err != nil || all["a"] != cert.ID() {
		t.Errorf("after a change of the caller's key: %v %v", all, err)
	}
	host := randomNode(t)
	must(t, host.HandleFunc("echo", echo))
	allow := []string{n.NodeID()}
	must(t, host.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.HTTP, EnableSignature: true, AllowPeers: allow}))
	allow[0] = host.NodeID()
	must(t, n.Connect("testhost", owtp.ConnectConfig{Address: host.ListenerAddr(owtp.HTTP), ConnectType: owtp.HTTP, EnableSignature: true}))
	answer(t, n, "testhost", "echo", 1)
}

// spellings are the ways in which octets show up in a text by accident.
func spellings(secret []byte) []string {
	list := strings.Trim(fmt.Sprint(secret[:6]), "[]")
	goList := strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", secret[:4]), "[]byte{"), "}")
	return []string{string(secret), hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)), list, goList}
}

func TestConfigSecretsAreNeverPrinted(t *testing.T) {
	cert := owtp.NewRandomCertificate()
	private, _ := cert.KeyPair()
	storeKey, previousKey := []byte("the-store-key-is-of-32-octets-ok"), []byte("previous-key-of-32-octets-it-is.")
	connect := owtp.ConnectConfig{Address: "user:adr3ssSecret@host:1", ConnectType: owtp.HTTP, Account: "visible", Password: "hunter2-secret", V1Cert: cert}
	node := owtp.NodeConfig{Cert: cert, StoreKey: storeKey, PreviousStoreKey: previousKey, TimeoutSEC: 3}
	n := startNode(t, node)
	s := newStage(t, way{connect: owtp.Memory, sign: true}, func(h, c *owtp.NodeConfig) { h.StoreKey, c.Cert, c.StoreKey = storeKey, cert, storeKey })
	s.dial.Password = connect.Password
	var inside []string
	must(t, s.client.HandleFunc("look", func(ctx *owtp.Context) {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			inside = append(inside, fmt.Sprintf(verb, ctx), fmt.Sprintf(verb, ctx.Peer), fmt.Sprintf(verb, *ctx.Peer))
		}
	}))
	must(t, s.host.HandleFunc("ask", func(ctx *owtp.Context) { _, _ = ctx.Node().CallSync(ctx.PID, "look", nil) }))
	s.connect(t)
	answer(t, s.client, "testhost", "ask", nil)
	if len(inside) == 0 {
		t.Fatal("the handler has not printed")
	}

	secrets := append(spellings(cert.PrivateKeyBytes()), private, "hunter2-secret", hex.EncodeToString([]byte("hunter2-secret")), "adr3ssSecret")
	secrets = append(append(secrets, spellings(storeKey)...), spellings(previousKey)...)
	secrets = append(secrets, spellings(cert.DerivedStoreKey())...)
	check := func(what, text string) {
		t.Helper()
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s shows a secret: %.300s", what, text)
			}
		}
	}
	for _, text := range inside {
		check("a handler's context or peer", text)
	}
	info := owtp.PeerInfo{ID: "p", Name: "n", Config: connect}
	things := map[string]any{
		"ConnectConfig": connect, "*ConnectConfig": &connect, "PeerInfo": info, "*PeerInfo": &info, "Certificate": cert, "*Certificate": &cert,
		"NodeConfig": node, "*NodeConfig": &node, "node": n, "in a slice": []any{connect, cert, node, info}, "in a map": map[string]any{"c": connect, "k": cert, "n": node},
		"in a struct": struct {
			C owtp.ConnectConfig
			K owtp.Certificate
			N *owtp.NodeConfig
			P owtp.PeerInfo
		}{connect, cert, &node, info},
	}
	for name, v := range things {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			check(name+" with "+verb, fmt.Sprintf(verb, v))
		}
		check(name+" in Sprint", fmt.Sprint(v))
		if b, err := json.Marshal(v); err == nil {
			check(name+" in JSON", string(b))
		} else {
			check(name+" in an error", err.Error())
		}
		var b bytes.Buffer
		opts := &slog.HandlerOptions{Level: slog.LevelDebug}
		for _, h := range []slog.Handler{slog.NewTextHandler(&b, opts), slog.NewJSONHandler(&b, opts)} {
			slog.New(h).Info("x", "v", v, slog.Group("g", "v", v))
		}
		check(name+" in slog", b.String())
		check(name+" in an error", fmt.Errorf("wrapped: %w, %v", errors.New("x"), v).Error())
	}
	// What is not secret is still there.
	for _, part := range []string{"visible", "@host:1", owtp.HTTP} {
		if text := fmt.Sprintf("%+v", connect); !strings.Contains(text, part) {
			t.Errorf("%s lacks %s", text, part)
		}
	}
	if text := fmt.Sprint(cert); !strings.Contains(text, cert.ID()) {
		t.Errorf("a certificate prints as %s", text)
	}
	b, err := json.Marshal(info)
	if must(t, err); !strings.Contains(string(b), "visible") || strings.Contains(string(b), "password") {
		t.Errorf("PeerInfo in JSON is %s", b)
	}
	if _, err := json.Marshal(cert); err == nil {
		t.Error("a certificate encodes itself")
	}
}

// Nothing that a node logs in its life names a secret.
func TestConfigSecretsAreNeverLogged(t *testing.T) {
	var book logBook
	cert := owtp.NewRandomCertificate()
	private, _ := cert.KeyPair()
	s := newStage(t, way{connect: owtp.Websocket, sign: true, suite: "aes"}, func(h, c *owtp.NodeConfig) {
		h.Logger, c.Logger, c.Cert = book.logger(), book.logger(), cert
	})
	must(t, s.host.HandleFunc("echo", echo))
	s.dial.Password = "hunter2-secret"
	s.connect(t)
	answer(t, s.client, "testhost", "echo", "the user's data")
	_ = s.client.Connect("other", owtp.ConnectConfig{Address: "127.0.0.1:1", ConnectType: owtp.Websocket, Password: "hunter2-secret"})
	must(t, s.host.Shutdown(context.Background()))
	for _, secret := range append(spellings(cert.PrivateKeyBytes()), private, "hunter2-secret", "the user's data") {
		if strings.Contains(book.text(), secret) {
			t.Errorf("the log shows %q", secret)
		}
	}
}

// The package documentation lists every field once.
func TestConfigIsDocumented(t *testing.T) {
	b, err := os.ReadFile("doc.go")
	must(t, err)
	for _, typ := range []reflect.Type{reflect.TypeFor[owtp.NodeConfig](), reflect.TypeFor[owtp.ConnectConfig]()} {
		for i := range typ.NumField() {
			if name := typ.Field(i).Name; !strings.Contains(string(b), "//   - "+name) && !strings.Contains(string(b), ", "+name+":") && !strings.Contains(string(b), ", "+name+", ") {
				t.Errorf("doc.go does not list %s.%s", typ.Name(), name)
			}
		}
	}
}

// An error of a transport keeps its cause and loses the library's name, which
// the node's own text begins with.
func TestListenErrors(t *testing.T) {
	a, b := owtp.RandomOWTPNode(), owtp.RandomOWTPNode()
	defer a.Close()
	defer b.Close()
	for address, connect := range map[string]string{t.Name(): owtp.Memory, "127.0.0.1:0": owtp.HTTP} {
		must(t, a.Listen(owtp.ConnectConfig{Address: address, ConnectType: connect}))
		taken := a.ListenerAddr(connect)
		err := b.Listen(owtp.ConnectConfig{Address: taken, ConnectType: connect})
		wantErr(t, err, taken, "in use")
		if n := strings.Count(err.Error(), "owtp: "); n != 1 {
			t.Errorf("the library's name stands %d times in %q", n, err)
		}
		if connect == owtp.HTTP && !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%q has lost its cause", err)
		}
	}
}
