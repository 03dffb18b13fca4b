package owtp_test

import (
	"strings"
	"testing"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/session"
)

// keeper binds handlers that set and get what the session of the caller keeps.
func keeper(t testing.TB, n *owtp.OWTPNode) {
	t.Helper()
	fail := func(ctx *owtp.Context, err error) {
		if err != nil {
			ctx.Response(nil, 600, err.Error())
		}
	}
	must(t, n.HandleFunc("set", func(ctx *owtp.Context) { fail(ctx, ctx.SetSession("k", ctx.Params().String())) }))
	must(t, n.HandleFunc("get", func(ctx *owtp.Context) {
		v, _ := ctx.GetSession("k").(string)
		ctx.Response(v, 200, ctx.PID)
	}))
	must(t, n.HandleFunc("del", func(ctx *owtp.Context) { fail(ctx, ctx.DelSession("k")) }))
	must(t, n.HandleFunc("destroy", func(ctx *owtp.Context) { fail(ctx, ctx.DestroySession()) }))
}

func kept(t testing.TB, n *owtp.OWTPNode, pid string) (value, id string) {
	t.Helper()
	r := answer(t, n, pid, "get", nil)
	return r.JsonData().String(), r.Msg
}

func TestSessionSetGetDelDestroy(t *testing.T) {
	eachWay(t, allWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		keeper(t, s.host)
		s.connect(t)
		if w.exchanges() && !w.proved() {
			// Nothing can be kept for who is somebody else next time.
			for _, m := range []string{"set", "del", "destroy"} {
				if r := answer(t, s.client, "testhost", m, "x"); r.Status != 600 || !strings.Contains(r.Msg, "anonymous") {
					t.Errorf("%s: %+v", m, r)
				}
			}
			if v, id := kept(t, s.client, "testhost"); v != "" || id == "" {
				t.Errorf("kept %q for %q", v, id)
			}
			return
		}
		for _, end := range []string{"del", "destroy"} {
			if r := answer(t, s.client, "testhost", "set", "x"); !r.OK() {
				t.Errorf("set: %+v", r)
			}
			if v, _ := kept(t, s.client, "testhost"); v != "x" {
				t.Errorf("kept %q", v)
			}
			answer(t, s.client, "testhost", end, nil)
			if v, _ := kept(t, s.client, "testhost"); v != "" {
				t.Errorf("after %s: %q", end, v)
			}
		}
	})
}

// A session belongs to the key that was proved, not to a transport.
func TestSessionFollowsTheProvedPeer(t *testing.T) {
	host := randomNode(t)
	keeper(t, host)
	connects := []string{owtp.HTTP, owtp.Websocket, owtp.Memory, owtp.MQ}
	for _, m := range media {
		must(t, host.Listen(owtp.ConnectConfig{Address: m.listenAddr(), ConnectType: m.name}))
	}
	client, stranger := randomNode(t), randomNode(t)
	for _, n := range []*owtp.OWTPNode{client, stranger} {
		for _, connect := range connects {
			cfg := owtp.ConnectConfig{Address: host.ListenerAddr(connect), ConnectType: connect, EnableSignature: connect != owtp.Memory, EnableKeyAgreement: connect != owtp.HTTP}
			if connect == owtp.MQ {
				cfg.PeerID = host.NodeID() // names the queue
			}
			must(t, n.Connect(connect, cfg))
		}
	}
	for _, from := range connects {
		answer(t, client, from, "set", "by "+from)
		for _, to := range connects {
			if v, id := kept(t, client, to); v != "by "+from || id != client.NodeID() {
				t.Errorf("set over %s, over %s it is %q of %s", from, to, v, id)
			}
			if v, _ := kept(t, stranger, to); v != "" {
				t.Errorf("a stranger over %s sees %q", to, v)
			}
		}
	}
	if v, last := host.Peerstore().GetString(client.NodeID(), "k"), connects[len(connects)-1]; v != "by "+last {
		t.Errorf("the peerstore has %q", v)
	}
}

func TestAnonymousSessionDiesWithItsConnection(t *testing.T) {
	eachWay(t, []way{{connect: owtp.Websocket}, {connect: owtp.Memory}}, func(t *testing.T, w way) {
		s := newStage(t, w)
		keeper(t, s.host)
		s.connect(t)
		answer(t, s.client, "testhost", "set", "x")
		v, id := kept(t, s.client, "testhost")
		if v != "x" || !strings.HasPrefix(id, "anon:") || s.host.Peerstore().GetString(id, "k") != "x" {
			t.Fatalf("kept %q for %q", v, id)
		}
		s.client.ClosePeer("testhost")
		eventually(t, "the session is destroyed", func() bool { return s.host.Peerstore().GetString(id, "k") == "" })
		s.connect(t)
		if v, again := kept(t, s.client, "testhost"); v != "" || again == id {
			t.Errorf("a new connection has %q as %s", v, again)
		}
	})
}

// What an anonymous peer left is not the proved one's.
func TestSessionNeverMovesToTheProvedPeer(t *testing.T) {
	eachWay(t, []way{{connect: owtp.Websocket}, {connect: owtp.Memory}}, func(t *testing.T, w way) {
		s := newStage(t, w)
		keeper(t, s.host)
		s.connect(t)
		answer(t, s.client, "testhost", "set", "anonymous")
		_, anon := kept(t, s.client, "testhost")
		must(t, s.client.KeyAgreement("testhost", "aes"))
		if v, id := kept(t, s.client, "testhost"); v != "" || id != s.client.NodeID() {
			t.Errorf("after the agreement %q is kept for %s", v, id)
		}
		answer(t, s.client, "testhost", "set", "proved")
		eventually(t, "the anonymous session is destroyed", func() bool { return s.host.Peerstore().GetString(anon, "k") == "" })
		if v, _ := kept(t, s.client, "testhost"); v != "proved" {
			t.Errorf("kept %q", v)
		}
	})
}

func TestSetPeerstore(t *testing.T) {
	manager := func() *owtp.SessionManager {
		m, err := owtp.NewSessionManager("memory", &session.ManagerConfig{Gclifetime: 10})
		must(t, err)
		t.Cleanup(func() { m.Close() })
		return m
	}
	first, second := manager(), manager()
	host := randomNode(t)
	if err := host.SetPeerstore(nil); err == nil {
		t.Error("a nil peerstore was accepted")
	}
	must(t, host.SetPeerstore(first))
	if host.Peerstore() != owtp.Peerstore(first) {
		t.Error("the peerstore is not the one that was set")
	}
	keeper(t, host)
	must(t, host.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.Websocket}))
	wantErr(t, host.SetPeerstore(second), "SetPeerstore", "Listen")
	client := randomNode(t)
	cfg := owtp.ConnectConfig{Address: host.ListenerAddr(owtp.Websocket), ConnectType: owtp.Websocket, EnableSignature: true}
	must(t, client.Connect("h", cfg))
	wantErr(t, client.SetPeerstore(second), "SetPeerstore", "Connect")
	answer(t, client, "h", "set", "x")
	if first.GetString(client.NodeID(), "k") != "x" || second.GetString(client.NodeID(), "k") != "" {
		t.Error("a session went into the wrong store")
	}
}

// A hand-written Peerstore keeps user data only; the node's own state lies
// elsewhere.
func TestHandWrittenPeerstore(t *testing.T) {
	store := &mapStore{values: make(map[string]any)}
	s := newStage(t, way{connect: owtp.HTTP, sign: true, suite: "aes"}, func(h, _ *owtp.NodeConfig) { h.Peerstore = store })
	keeper(t, s.host)
	s.connect(t)
	answer(t, s.client, "testhost", "set", "x")
	if v, _ := kept(t, s.client, "testhost"); v != "x" {
		t.Errorf("kept %q", v)
	}
	for k := range store.values {
		if k != s.client.NodeID()+"/k" {
			t.Errorf("the store holds %q", k)
		}
	}
}

// mapStore is used by one call at a time here.
type mapStore struct{ values map[string]any }

func (m *mapStore) SavePeer(owtp.PeerInfo) error    { return nil }
func (m *mapStore) PeerInfo(string) owtp.PeerInfo   { return owtp.PeerInfo{} }
func (m *mapStore) Get(id, key string) any          { return m.values[id+"/"+key] }
func (m *mapStore) GetString(id, key string) string { s, _ := m.Get(id, key).(string); return s }
func (m *mapStore) Put(id, key string, v any) error { m.values[id+"/"+key] = v; return nil }
func (m *mapStore) Delete(id, key string) error     { delete(m.values, id+"/"+key); return nil }
func (m *mapStore) Destroy(id string) error         { clear(m.values); return nil }

// Flushing or destroying user sessions does not touch bindings, agreements and
// call records.
func TestNodeStateIsOutOfSessionsReach(t *testing.T) {
	m, err := owtp.NewSessionManager("memory", &session.ManagerConfig{Gclifetime: 1})
	must(t, err)
	defer m.Close()
	s := newStage(t, way{connect: owtp.HTTP, sign: true, suite: "aes"}, func(h, c *owtp.NodeConfig) { h.Peerstore, c.Peerstore = m, m })
	keeper(t, s.host)
	s.connect(t)
	answer(t, s.client, "testhost", "set", "x")
	must(t, m.Flush(background(t)))
	if v, _ := kept(t, s.client, "testhost"); v != "" {
		t.Errorf("after a flush %q is kept", v)
	}
	all, err := s.client.Bindings(background(t))
	if must(t, err); all["testhost"] != s.host.NodeID() {
		t.Errorf("bindings after a flush: %v", all)
	}
	keys, err := m.Provider().List(background(t), session.NodePrefix, "", 100)
	if must(t, err); len(keys) == 0 {
		t.Error("a session manager as Peerstore does not keep the node's state")
	}
}
