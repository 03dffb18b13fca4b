package owtp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/memory"
)

// A vendor's store is one that somebody else can read, and that answers or not.
type vendor struct {
	session.Provider
	fail atomic.Pointer[error] // what List returns
	mu   sync.Mutex
	keys map[string]bool // all that it was ever told
}

func newVendor(t testing.TB) *vendor {
	return &vendor{Provider: newMemory(t, memory.Options{}), keys: make(map[string]bool)}
}

func (v *vendor) Traits() session.Traits {
	t := v.Provider.Traits()
	t.Name, t.Shared, t.Durable = "vendor", true, true
	return t
}

func (v *vendor) sees(keys ...string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, k := range keys {
		v.keys[k] = true
	}
}

func (v *vendor) Get(ctx context.Context, key string) (session.Record, error) {
	v.sees(key)
	return v.Provider.Get(ctx, key)
}

func (v *vendor) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	v.sees(key)
	return v.Provider.Put(ctx, key, value, ttl)
}

func (v *vendor) PutIfAbsent(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	v.sees(key)
	return v.Provider.PutIfAbsent(ctx, key, value, ttl)
}

func (v *vendor) CompareAndSwap(ctx context.Context, key string, version uint64, value []byte, ttl time.Duration) (uint64, error) {
	v.sees(key)
	return v.Provider.CompareAndSwap(ctx, key, version, value, ttl)
}

func (v *vendor) Touch(ctx context.Context, key string, version uint64, ttl time.Duration) (bool, error) {
	v.sees(key)
	return v.Provider.Touch(ctx, key, version, ttl)
}

func (v *vendor) Delete(ctx context.Context, key string) error {
	v.sees(key)
	return v.Provider.Delete(ctx, key)
}

func (v *vendor) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	v.sees(prefix)
	if after != "" {
		v.sees(after)
	}
	if err := v.fail.Load(); err != nil {
		return nil, *err
	}
	return v.Provider.List(ctx, prefix, after, limit)
}

// dump returns everything that lies in the store.
func (v *vendor) dump(t testing.TB) map[string]session.Record {
	t.Helper()
	keys, err := v.Provider.List(background(t), "", "", 1000)
	must(t, err)
	all := make(map[string]session.Record)
	for _, k := range keys {
		if all[k], err = v.Provider.Get(background(t), k); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// copyRecord moves a record as the store's owner can.
func (v *vendor) copyRecord(t testing.TB, from, to string, change func([]byte) []byte) {
	t.Helper()
	rec, err := v.Provider.Get(background(t), from)
	must(t, err)
	value := bytes.Clone(rec.Value)
	if change != nil {
		value = change(value)
	}
	must(t, v.Provider.Put(background(t), to, value, rec.TTL))
}

// managerOver returns a session manager as a program has it.
func managerOver(t testing.TB, p session.Provider, cfg *session.ManagerConfig) *owtp.SessionManager {
	t.Helper()
	m, err := session.ManagerOf(p, cfg)
	must(t, err)
	t.Cleanup(func() { m.Close() })
	return &owtp.SessionManager{Manager: m}
}

func storeKey(n byte) []byte { return bytes.Repeat([]byte{n}, 32) }

// A stolen store of a node whose handlers keep things, in all ways of calling:
// no value, no field's name, no address and no secret stands in it readable.
func TestStoreIsSealed(t *testing.T) {
	eachWay(t, allWays(), func(t *testing.T, w way) {
		store := newVendor(t)
		sessions := managerOver(t, store, nil)
		cert, client := owtp.NewRandomCertificate(), owtp.NewRandomCertificate()
		s := newStage(t, w, func(h, c *owtp.NodeConfig) { h.Cert, h.Peerstore, c.Cert, c.Store = cert, sessions, client, store })
		must(t, s.host.HandleFunc("login", func(c *owtp.Context) {
			if !w.proved() && w.exchanges() {
				return // nothing is kept for who is nobody
			}
			if err := errors.Join(c.SetSession("field-of-session", "value-of-session"), c.SetSession("bytes", []byte("octets-of-session"))); err != nil {
				c.Response(nil, 600, err.Error())
			} else if c.GetSession("field-of-session") != "value-of-session" {
				c.Response(nil, 601, "it does not come back")
			}
		}))
		s.connect(t)
		var opts owtp.CallOptions
		if w.proved() {
			opts.CallKey = []byte("0123456789abcdef")
		}
		resp, err := s.client.CallContext(background(t), "testhost", "login", map[string]string{"password": "params-of-login"}, &opts)
		if err != nil || !resp.OK() {
			t.Fatalf("%+v, %v", resp, err)
		}
		must(t, sessions.SavePeer(owtp.PeerInfo{ID: s.client.NodeID(), Config: owtp.ConnectConfig{Address: "address-of-peer:1", Account: "account-of-peer"}}))

		var secrets searcher
		for _, word := range []string{"value-of-session", "field-of-session", "octets-of-session", "params-of-login", "address-of-peer", "account-of-peer", "0123456789abcdef"} {
			secrets.forms = addForm(secrets.forms, word)
		}
		secrets.octets("host's private key", cert.PrivateKeyBytes())
		secrets.octets("client's private key", client.PrivateKeyBytes())
		secrets.octets("host's store key", cert.DerivedStoreKey())
		for _, n := range []*owtp.OWTPNode{s.host, s.client} {
			for i, secret := range n.SessionSecrets() {
				secrets.octets(fmt.Sprint("session secret ", i), secret)
			}
		}
		users := 0
		for key, rec := range store.dump(t) {
			if strings.HasPrefix(key, session.UserPrefix) {
				users++
			}
			if found := secrets.find(string(rec.Value)); found != nil {
				t.Errorf("under %q stand %q", key, found)
			}
			if bytes.Contains(rec.Value, []byte("testhost")) {
				t.Errorf("the alias stands in the value of %q", key)
			}
		}
		if users == 0 {
			t.Error("no user session was kept: the test looks at nothing")
		}
	})
}

// addForm looks for a word as it is: a stored value is no log.
func addForm(forms map[string]string, word string) map[string]string {
	if forms == nil {
		forms = make(map[string]string)
	}
	forms[word] = word
	return forms
}

// What the owner of a store moves about opens nowhere else: between nodes,
// aliases and purposes, and between the node's state and user sessions, also
// where all share one key.
func TestStoreMovedRecords(t *testing.T) {
	ctx := background(t)
	store := newVendor(t)
	key := storeKey(7)
	sessions := managerOver(t, store, nil)
	a := startNode(t, owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), StoreKey: key, Peerstore: sessions})
	b := startNode(t, owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), StoreKey: key, Peerstore: sessions})
	mallory := owtp.NewRandomCertificate().ID()
	must(t, a.PinPeer(ctx, "alias", b.NodeID()))
	must(t, a.PinPeer(ctx, "other", mallory))
	must(t, sessions.Put("peer", "user", "kkk"))
	place := func(n *owtp.OWTPNode, alias string) string { return "n/" + n.NodeID() + "/bind/" + alias }
	good := store.dump(t)

	back := func() {
		for key := range store.dump(t) {
			must(t, store.Provider.Delete(ctx, key))
		}
		for key, rec := range good {
			must(t, store.Provider.Put(ctx, key, rec.Value, rec.TTL))
		}
		if all, err := a.Bindings(ctx); err != nil || len(all) != 2 {
			t.Fatalf("as it was: %v, %v", all, err)
		}
	}
	for what, c := range map[string]struct {
		from   string
		to     string
		by     *owtp.OWTPNode
		change func([]byte) []byte
	}{
		"another alias's":    {place(a, "other"), place(a, "alias"), a, nil},
		"another node's":     {place(a, "alias"), place(b, "alias"), b, nil},
		"another purpose's":  {"n/" + a.NodeID() + "/epoch", place(a, "alias"), a, nil},
		"a user session":     {"s//peer", place(a, "alias"), a, func(v []byte) []byte { return v[1:] }},
		"a user's, as it is": {"s//peer", place(a, "alias"), a, nil},
		"changed":            {place(a, "alias"), place(a, "alias"), a, func(v []byte) []byte { v[len(v)-1] ^= 1; return v }},
		"cut":                {place(a, "alias"), place(a, "alias"), a, func(v []byte) []byte { return v[:len(v)-1] }},
		"in plain":           {place(a, "alias"), place(a, "alias"), a, func([]byte) []byte { return make([]byte, 32) }},
		"empty":              {place(a, "alias"), place(a, "alias"), a, func([]byte) []byte { return nil }},
		"of a newer format":  {place(a, "alias"), place(a, "alias"), a, func(v []byte) []byte { v[0] = 2; return v }},
	} {
		back()
		if what == "another purpose's" {
			_, err := a.StoreEpoch(ctx)
			must(t, err)
		}
		store.copyRecord(t, c.from, c.to, c.change)
		if all, err := c.by.Bindings(ctx); err == nil {
			t.Errorf("a binding that is %s: %v", what, all)
		}
		// Nor is it taken for absent and made anew with whoever comes first.
		if err := c.by.Connect("alias", owtp.ConnectConfig{Address: "127.0.0.1:1", ConnectType: owtp.HTTP, EnableSignature: true}); err == nil || !strings.Contains(err.Error(), "does not open") {
			t.Errorf("connecting by a binding that is %s: %v", what, err)
		}
	}
	back()
	for what, change := range map[string]func([]byte) []byte{
		"as it is": nil, "marked as a session": func(v []byte) []byte { return append([]byte{2}, v...) },
	} {
		store.copyRecord(t, place(a, "alias"), "s//peer", change)
		if v, err := sessions.Session("peer").Get(ctx, "user"); !errors.Is(err, session.ErrCorrupt) {
			t.Errorf("a binding as a user session, %s: %v, %v", what, v, err)
		}
	}
}

// wrapped is a program's own Peerstore around a manager.
type wrapped struct{ *owtp.SessionManager }

// A manager takes the key of the nodes that share it, and no two.
func TestPeerstoreTakesTheNodesKey(t *testing.T) {
	certA, certB := owtp.NewRandomCertificate(), owtp.NewRandomCertificate()
	for what, c := range map[string]struct {
		cfg    *session.ManagerConfig
		a, b   owtp.NodeConfig
		inside bool
		says   string
	}{
		"two nodes with derived keys":            {a: owtp.NodeConfig{Cert: certA}, b: owtp.NodeConfig{Cert: certB}, says: "ManagerConfig.StoreKey"},
		"two replicas":                           {a: owtp.NodeConfig{Cert: certA}, b: owtp.NodeConfig{Cert: certA}},
		"two nodes with one key":                 {a: owtp.NodeConfig{Cert: certA, StoreKey: storeKey(1)}, b: owtp.NodeConfig{Cert: certB, StoreKey: storeKey(1)}},
		"one knows a previous key":               {a: owtp.NodeConfig{Cert: certA, StoreKey: storeKey(1)}, b: owtp.NodeConfig{Cert: certB, StoreKey: storeKey(1), PreviousStoreKey: storeKey(2)}, says: "PreviousStoreKey"},
		"two nodes, and a key of the manager's":  {cfg: &session.ManagerConfig{StoreKey: storeKey(3)}, a: owtp.NodeConfig{Cert: certA}, b: owtp.NodeConfig{Cert: certB}},
		"two nodes, and a store in this process": {inside: true, a: owtp.NodeConfig{Cert: certA}, b: owtp.NodeConfig{Cert: certB}},
		"two nodes, and plaintext that is asked": {cfg: &session.ManagerConfig{InsecurePlaintext: true}, a: owtp.NodeConfig{Cert: certA}, b: owtp.NodeConfig{Cert: certB}},
	} {
		for way, give := range map[string]func(cfg owtp.NodeConfig, m *owtp.SessionManager) error{
			"NodeConfig": func(cfg owtp.NodeConfig, m *owtp.SessionManager) error {
				cfg.Peerstore = m
				n, err := owtp.New(cfg)
				if err == nil {
					t.Cleanup(func() { n.Close() })
				} else if again := owtp.NewNode(cfg).Listen(owtp.ConnectConfig{}); again == nil || again.Error() != err.Error() {
					t.Errorf("%s: NewNode says %v", what, again)
				}
				return err
			},
			"SetPeerstore": func(cfg owtp.NodeConfig, m *owtp.SessionManager) error { return startNode(t, cfg).SetPeerstore(m) },
			"wrapped": func(cfg owtp.NodeConfig, m *owtp.SessionManager) error {
				return startNode(t, cfg).SetPeerstore(wrapped{m})
			},
		} {
			store := newVendor(t)
			var p session.Provider = store
			if c.inside {
				p = store.Provider
			}
			m := managerOver(t, p, c.cfg)
			must(t, give(c.a, m))
			switch err := give(c.b, m); {
			case c.says == "" && err != nil:
				t.Errorf("%s, %s: %v", what, way, err)
			case c.says != "":
				wantErr(t, err, c.says)
			}
			must(t, m.Put("peer", "user", "kkk"))
			if v := m.GetString("peer", "user"); v != "kkk" {
				t.Errorf("%s, %s: %q", what, way, v)
			}
		}
	}
}

// A gateway sends what comes to one of several replicas.
type gateway struct{ to atomic.Pointer[http.Handler] }

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) { (*g.to.Load()).ServeHTTP(w, r) }

// The three steps of SECURITY.md, with two replicas that make them one after the
// other while a client goes on calling: its agreed session, its user session
// and the bindings outlive the key.
func TestStoreKeyRotation(t *testing.T) {
	for what, keys := range map[string]struct{ old, next func(owtp.Certificate) []byte }{
		"one key for another":           {func(owtp.Certificate) []byte { return storeKey(1) }, func(owtp.Certificate) []byte { return storeKey(2) }},
		"the derived key for one given": {owtp.Certificate.DerivedStoreKey, func(owtp.Certificate) []byte { return storeKey(2) }},
		"one given for the derived key": {func(owtp.Certificate) []byte { return storeKey(1) }, owtp.Certificate.DerivedStoreKey},
	} {
		t.Run(what, func(t *testing.T) {
			ctx := background(t)
			store, cert := newVendor(t), owtp.NewRandomCertificate()
			old, next := keys.old(cert), keys.next(cert)
			var gate gateway
			server := httptest.NewServer(&gate)
			defer server.Close()
			var book logBook
			replica := func(key, previous []byte) *owtp.OWTPNode {
				if bytes.Equal(key, cert.DerivedStoreKey()) {
					key = nil // as a program has it
				}
				n := startNode(t, owtp.NodeConfig{Cert: cert, StoreKey: key, PreviousStoreKey: previous, Peerstore: managerOver(t, store, nil), Logger: book.logger()})
				keeper(t, n)
				return n
			}
			serve := func(n *owtp.OWTPNode) {
				face, err := n.HTTPHandler(owtp.ConnectConfig{EnableKeyAgreement: true})
				must(t, err)
				gate.to.Store(&face)
			}
			client := randomNode(t)
			check := func(step string, by *owtp.OWTPNode) {
				t.Helper()
				serve(by)
				if v, _ := kept(t, client, "h"); v != "before" {
					t.Errorf("%s: the user session has %q", step, v)
				}
				if all, err := by.Bindings(ctx); err != nil || all["alias"] != client.NodeID() {
					t.Errorf("%s: bindings: %v, %v", step, all, err)
				}
			}
			first := replica(old, nil)
			must(t, first.PinPeer(ctx, "alias", client.NodeID()))
			serve(first)
			must(t, client.Connect("h", owtp.ConnectConfig{Address: strings.TrimPrefix(server.URL, "http://"), ConnectType: owtp.HTTP, EnableKeyAgreement: true}))
			answer(t, client, "h", "set", "before")
			agreed := client.SessionSecrets()
			if len(agreed) != 2 {
				t.Fatalf("%d secrets of one session", len(agreed))
			}
			// 1. All know both, and seal under the old one.
			one, two := replica(old, next), replica(old, next)
			check("both know both", one)
			check("both know both", two)
			check("the first one still", first)
			// 2. One after the other seals under the new one.
			switched := replica(next, old)
			check("the first has switched", switched)
			check("the second has not", two)
			check("the first again", switched)
			switchedToo := replica(next, old)
			serve(switchedToo)
			eventually(t, "both say that nothing is left", func() bool { return strings.Count(book.text(), "PreviousStoreKey can go") >= 4 })
			check("both have switched", switchedToo)
			if now := client.SessionSecrets(); len(now) != 2 || !bytes.Equal(now[0], agreed[0]) {
				t.Error("the client had to agree anew: its session did not outlive the change")
			}
			// 3. The old one goes.
			check("the old key is gone", replica(next, nil))
			if all, err := replica(old, nil).Bindings(ctx); err == nil {
				t.Errorf("the old key still reads %v", all)
			}
			if strings.Contains(book.text(), "unreadable") || strings.Contains(book.text(), "cannot list") {
				t.Errorf("the log says:\n%s", book.text())
			}
		})
	}
}

// The pass over what never expires outlasts a store that fails, says what it
// could not move, and ends with its node.
func TestMovingRecordsMeetsTrouble(t *testing.T) {
	ctx := background(t)
	cert := owtp.NewRandomCertificate()
	filled := func(t *testing.T) *vendor {
		store := newVendor(t)
		n := startNode(t, owtp.NodeConfig{Cert: cert, Store: store, StoreKey: storeKey(1)})
		for i := range 250 { // three pages
			must(t, n.PinPeer(ctx, fmt.Sprint("alias", i), cert.ID()))
		}
		_, err := n.StoreEpoch(ctx)
		must(t, err)
		return store
	}
	begin := func(t *testing.T, store *vendor) (*owtp.OWTPNode, *logBook) {
		var book logBook
		n := startNode(t, owtp.NodeConfig{Cert: cert, Store: store, StoreKey: storeKey(2), PreviousStoreKey: storeKey(1), Logger: book.logger()})
		must(t, n.PinPeer(ctx, "begin", cert.ID()))
		return n, &book
	}
	says := func(t *testing.T, book *logBook, text string) {
		t.Helper()
		eventually(t, "the log says "+text, func() bool { return strings.Contains(book.text(), text) })
	}
	moved := func(t *testing.T, store *vendor, want int) {
		t.Helper()
		all, err := startNode(t, owtp.NodeConfig{Cert: cert, Store: store, StoreKey: storeKey(2)}).Bindings(ctx)
		if must(t, err); len(all) != want {
			t.Errorf("%d bindings under the new key, want %d", len(all), want)
		}
	}
	t.Run("nothing", func(t *testing.T) {
		store := filled(t)
		_, book := begin(t, store)
		says(t, book, "moved=251")
		moved(t, store, 251) // with the one that was made since
		for key, rec := range store.dump(t) {
			if rec.TTL != 0 {
				t.Errorf("%s expires in %v", key, rec.TTL)
			}
		}
	})
	t.Run("a store that fails", func(t *testing.T) {
		store := filled(t)
		err := errors.New("the store is away")
		store.fail.Store(&err)
		_, book := begin(t, store)
		says(t, book, "the store is away")
		if strings.Contains(book.text(), "can go") {
			t.Error("it is said to be done")
		}
		store.fail.Store(nil)
		says(t, book, "can go")
		moved(t, store, 251)
	})
	t.Run("a store that never answers", func(t *testing.T) {
		store := filled(t)
		err := errors.New("the store is away")
		store.fail.Store(&err)
		n, book := begin(t, store)
		says(t, book, "the store is away")
		must(t, n.Close())
	})
	t.Run("a store that cannot list", func(t *testing.T) {
		store := filled(t)
		err := fmt.Errorf("list: %w", errors.ErrUnsupported)
		store.fail.Store(&err)
		_, book := begin(t, store)
		says(t, book, "cannot list")
	})
	t.Run("a record that does not open", func(t *testing.T) {
		store := filled(t)
		broken := "n/" + cert.ID() + "/bind/alias7"
		store.copyRecord(t, broken, broken, func(v []byte) []byte { v[40] ^= 1; return v })
		_, book := begin(t, store)
		says(t, book, "unreadable=1")
		if strings.Contains(book.text(), "can go") {
			t.Error("it is said to be done")
		}
		must(t, store.Provider.Delete(ctx, broken))
		moved(t, store, 250)
	})
}

func TestCloseErasesStoreKeys(t *testing.T) {
	for what, cfg := range map[string]owtp.NodeConfig{
		"derived": {}, "given": {StoreKey: storeKey(1), PreviousStoreKey: storeKey(2)},
	} {
		cfg.Cert = owtp.NewRandomCertificate()
		n := startNode(t, cfg)
		keys := n.StoreKeys()
		if len(keys[0]) != 32 || bytes.Equal(keys[0], make([]byte, 32)) {
			t.Fatalf("%s: the node has no key", what)
		}
		must(t, n.Close())
		for _, key := range keys {
			if len(bytes.Trim(key, "\x00")) != 0 {
				t.Errorf("%s: a key is still in memory", what)
			}
		}
		if err := n.SetPeerstore(managerOver(t, newVendor(t), nil)); err == nil {
			t.Errorf("%s: a closed node gives its key away", what)
		}
	}
	if key := (owtp.Certificate{}).DerivedStoreKey(); key != nil {
		t.Errorf("the empty certificate has the key %x", key)
	}
}

// Whatever names a program and its peers choose, a store gets keys of letters,
// digits and four signs: nothing in which a server could find a meaning.
func TestStoreSeesNoUnescapedInput(t *testing.T) {
	hostile := []string{"' OR 1=1; --", "../../etc/passwd", "a\x00b", "x\r\nDEL s//peer", "*", "a/b", "s/", "n/", "ünï", "\xff\xfe", "{a}", "%2F", " ", "$ne", `\`, `"`, strings.Repeat("/", 80)}
	ctx := background(t)
	store := newVendor(t)
	for _, prefix := range append(hostile, "") {
		m := managerOver(t, store, &session.ManagerConfig{SessionIDPrefix: prefix, StoreKey: storeKey(1)})
		for _, id := range hostile {
			must(t, m.Put(id, id, id))
			if m.GetString(id, id) != id {
				t.Errorf("%q under %q does not come back", id, prefix)
			}
			must(t, m.SavePeer(owtp.PeerInfo{ID: id}))
			if _, err := m.All(ctx, id, 10); err != nil {
				t.Error(err)
			}
			must(t, errors.Join(m.Delete(id, id), m.Destroy(id)))
		}
		must(t, m.Flush(ctx))
	}
	sessions := managerOver(t, store, &session.ManagerConfig{SessionIDPrefix: hostile[0]})
	host := startNode(t, owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Peerstore: sessions})
	keeper(t, host)
	client := startNode(t, owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Store: store})
	for _, w := range []way{{connect: owtp.HTTP, sign: true, suite: "aes"}, {connect: owtp.HTTP, sign: true}, {connect: owtp.Websocket, sign: true, suite: "sm4"}, {connect: owtp.Websocket}, {connect: owtp.Memory}, {connect: owtp.MQ, sign: true}, {connect: owtp.MQ}} {
		listen := owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: w.connect}
		switch w.connect {
		case owtp.Memory:
			listen.Address = freshName(t)
		case owtp.MQ:
			listen.Address = freshBroker()
		}
		if host.ListenerAddr(w.connect) == "" {
			must(t, host.Listen(listen))
		}
		dial := owtp.ConnectConfig{Address: host.ListenerAddr(w.connect), ConnectType: w.connect, EnableSignature: w.sign, EnableKeyAgreement: w.suite != ""}
		if w.connect == owtp.MQ {
			dial.WriteQueueName = "owtp.node." + host.NodeID()
		}
		for i, alias := range hostile {
			name := fmt.Sprint(alias, w)
			if !utf8.ValidString(name) {
				wantErr(t, client.PinPeer(ctx, name, host.NodeID()), "UTF-8")
				continue
			}
			must(t, client.Connect(name, dial))
			answer(t, client, name, "set", alias)
			if w.proved() {
				_, err := client.CallContext(ctx, name, "get", nil, &owtp.CallOptions{CallKey: fmt.Appendf(nil, "%-16.15s%c", alias, 'a'+i)[:16]})
				must(t, err)
			}
			client.ClosePeer(name)
			if i%2 == 0 && w.proved() {
				must(t, client.ForgetPeer(ctx, name))
			}
		}
	}
	all, err := client.Bindings(ctx)
	if must(t, err); len(all) == 0 {
		t.Error("nothing was bound")
	}
	const part = `[A-Za-z0-9_~%-]`
	strict := regexp.MustCompile(`^(s/` + part + `*/` + part + `*|n/[1-9A-HJ-NP-Za-km-z]{40,44}/(epoch|bind/` + part + `*|session/[0-9a-f]{64}|call/` + part + `+/[0-9a-f]{32}))$`)
	kinds := make(map[string]int)
	store.mu.Lock()
	defer store.mu.Unlock()
	for key := range store.keys {
		if !strict.MatchString(key) {
			t.Errorf("the store was told the key %q", key)
			continue
		}
		kind := "s"
		if parts := strings.Split(key, "/"); parts[0] == "n" {
			kind = parts[2]
		}
		kinds[kind]++
	}
	for _, kind := range []string{"s", "epoch", "bind", "session", "call"} {
		if kinds[kind] == 0 {
			t.Errorf("no key of the kind %s was seen: %v", kind, kinds)
		}
	}
}

// What NewSessionManager returns beside an error is no Peerstore, and says so.
func TestPeerstoreThatIsNil(t *testing.T) {
	m, err := owtp.NewSessionManager("papyrus", nil)
	if err == nil {
		t.Fatal("papyrus is a store")
	}
	_, err = owtp.New(owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Peerstore: m})
	wantErr(t, err, "NewSessionManager")
	wantErr(t, randomNode(t).SetPeerstore(&owtp.SessionManager{}), "NewSessionManager")
}
