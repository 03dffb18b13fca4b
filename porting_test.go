package owtp_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/session"
)

// The names that programs of this family use, with the types that they use
// them with. Most of this test is that it compiles.
var (
	_ func(string, ...string) (owtp.Certificate, error)                         = owtp.NewCertificate
	_ func() string                                                             = owtp.RandomPrivateKey
	_ func() owtp.Certificate                                                   = owtp.NewRandomCertificate
	_ func(owtp.NodeConfig) *owtp.OWTPNode                                      = owtp.NewNode
	_ func(owtp.NodeConfig) (*owtp.OWTPNode, error)                             = owtp.New
	_ func(owtp.Certificate, int, int) *owtp.OWTPNode                           = owtp.NewOWTPNode
	_ func(string, *session.ManagerConfig) (*owtp.SessionManager, error)        = owtp.NewSessionManager
	_ func(*owtp.SessionManager)                                                = func(m *owtp.SessionManager) { m.GC() }
	_ func(error) uint64                                                        = owtp.StatusOf
	_ func([]byte) (*owtp.Evidence, error)                                      = owtp.VerifyEvidence
	_ owtp.Peerstore                                                            = (*owtp.SessionManager)(nil)
	_ error                                                                     = (*owtp.Error)(nil)
	_ interface{ Timeout() bool }                                               = (*owtp.Error)(nil)
	_ func(owtp.Certificate) (string, string)                                   = owtp.Certificate.KeyPair
	_ func(owtp.Certificate) []byte                                             = owtp.Certificate.PublicKeyBytes
	_ func(owtp.Certificate) []byte                                             = owtp.Certificate.PrivateKeyBytes
	_ func(owtp.Certificate) string                                             = owtp.Certificate.ID
	_ []string                                                                  = []string{owtp.HTTP, owtp.Websocket, owtp.MQ, owtp.Memory}
	_ func(next owtp.HandlerFunc) owtp.HandlerFunc                              = func(next owtp.HandlerFunc) owtp.HandlerFunc { return next }
	_ func(*owtp.OWTPNode, ...func(owtp.HandlerFunc) owtp.HandlerFunc)          = (*owtp.OWTPNode).Use
	_ func(*owtp.OWTPNode, owtp.ConnectConfig) (http.Handler, error)            = (*owtp.OWTPNode).HTTPHandler
	_ func(*owtp.OWTPNode, owtp.ConnectConfig) (http.Handler, error)            = (*owtp.OWTPNode).WebsocketHandler
	_ func(*owtp.OWTPNode, context.Context) error                               = (*owtp.OWTPNode).Shutdown
	_ func(*owtp.OWTPNode, context.Context, string, string, any) error          = (*owtp.OWTPNode).Notify
	_ func(*owtp.OWTPNode, context.Context, string) (time.Duration, error)      = (*owtp.OWTPNode).Ping
	_ func(*owtp.OWTPNode, context.Context, string, owtp.ConnectConfig) error   = (*owtp.OWTPNode).ConnectContext
	_ func(*owtp.OWTPNode, context.Context, string, string) error               = (*owtp.OWTPNode).KeyAgreementContext
	_ func(*owtp.OWTPNode, context.Context, owtp.ConnectConfig) (string, error) = (*owtp.OWTPNode).Identify
)

// portedNode is what a node does for such programs.
type portedNode interface {
	NodeID() string
	Certificate() owtp.Certificate
	Peerstore() owtp.Peerstore
	SetPeerstore(owtp.Peerstore) error
	HandleFunc(method string, handler owtp.HandlerFunc, opts ...owtp.HandleOption) error
	HandlePrepareFunc(owtp.HandlerFunc)
	HandleFinishFunc(owtp.HandlerFunc)
	Listen(owtp.ConnectConfig) error
	Listening(connectType string) bool
	CloseListener(connectType string)
	Connect(pid string, cfg owtp.ConnectConfig) error
	ConnectAndCall(pid string, cfg owtp.ConnectConfig, method string, params any, sync bool, f func(owtp.Response)) error
	KeyAgreement(pid, suite string) error
	Call(pid, method string, params any, sync bool, f func(owtp.Response)) error
	CallSync(pid, method string, params any) (*owtp.Response, error)
	ClosePeer(pid string)
	Close() error
	IsConnectPeer(pid string) bool
	OnlinePeers() []*owtp.Peer
	GetOnlinePeer(pid string) *owtp.Peer
	SetOpenHandler(func(*owtp.OWTPNode, owtp.PeerInfo))
	SetCloseHandler(func(*owtp.OWTPNode, owtp.PeerInfo))
	SetReloadPeerInfoHandler(func(*owtp.OWTPNode, owtp.PeerInfo) owtp.PeerInfo)
}

type portedContext interface {
	Params() gjson.Result
	Response(result any, status uint64, msg string)
	ResponseStopRun(result any, status uint64, msg string)
	SetSession(key string, val any) error
	GetSession(key string) any
	DelSession(key string) error
	DestroySession() error
	Context() context.Context
	Close()
	Evidence() []byte
}

type portedPeer interface {
	PID() string
	IsHost() bool
	IsConnected() bool
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
	ConnectConfig() owtp.ConnectConfig
	EnableKeyAgreement() bool
}

type portedPeerstore interface {
	SavePeer(peer owtp.PeerInfo) error
	PeerInfo(id string) owtp.PeerInfo
	Get(id, key string) any
	GetString(id, key string) string
	Put(id, key string, val any) error
	Delete(id, key string) error
	Destroy(id string) error
}

var (
	_ portedNode      = (*owtp.OWTPNode)(nil)
	_ portedContext   = (*owtp.Context)(nil)
	_ portedPeer      = (*owtp.Peer)(nil)
	_ portedPeerstore = (*owtp.SessionManager)(nil)
	_                 = owtp.NodeConfig{TimeoutSEC: 1, Peerstore: owtp.Peerstore(nil), Store: session.Provider(nil), StoreKey: nil, Trust: owtp.TrustPinned, Window: 0, MaxQueueTime: 0, Limits: owtp.Limits{}, Logger: (*slog.Logger)(nil)}
	_                 = session.ManagerConfig{Gclifetime: 1, Maxlifetime: 1, ProviderConfig: "", SessionIDPrefix: ""}
	_                 = owtp.Error{Status: 1, Msg: "", Method: "", PeerID: "", Proved: true, MayHaveRun: true}
	_                 = owtp.CallOptions{Timeout: 1, Meta: nil, CallKey: nil}
)

func TestPortedStatuses(t *testing.T) {
	for want, got := range map[uint64]uint64{
		200: owtp.StatusSuccess, 400: owtp.ErrBadRequest, 401: owtp.ErrUnauthorized, 402: owtp.ErrSecretKeyInvalid,
		404: owtp.ErrNotFoundMethod, 408: owtp.ErrRequestTimeout, 409: owtp.ErrReplayAttack, 430: owtp.ErrNetworkDisconnected,
		500: owtp.ErrInternalServerError, 501: owtp.ErrResponseMethodDiffer, 502: owtp.ErrKeyAgreementFailed,
		503: owtp.ErrDenialOfService, 600: owtp.ErrCustomError, 413: owtp.ErrTooLarge, 415: owtp.ErrUnsupportedType,
		429: owtp.ErrTooManyRequests, 504: owtp.ErrOutcomeUnknown,
	} {
		if got != want {
			t.Errorf("status %d has the value %d", want, got)
		}
		if want < 600 && owtp.StatusText(got) == "" {
			t.Errorf("status %d has no text", want)
		}
	}
}

// Programs keep ConnectConfig in JSON files.
func TestPortedConfigJSON(t *testing.T) {
	typ := reflect.TypeFor[owtp.ConnectConfig]()
	for i := range typ.NumField() {
		f := typ.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch f.Name {
		case "TLS", "Authorize", "V1Cert":
			if tag != "-" {
				t.Errorf("%s cannot be in JSON, its tag is %q", f.Name, tag)
			}
		default:
			if want := strings.ToLower(f.Name[:1]) + f.Name[1:]; tag != want {
				t.Errorf("%s has the tag %q, want %q", f.Name, tag, want)
			}
		}
	}
	in := `{"address":"h:1","connectType":"mq","account":"a","password":"p","exchange":"e","writeQueueName":"w","readQueueName":"r",
		"enableSSL":true,"readBufferSize":1,"writeBufferSize":2,"enableKeyAgreement":true,"enableSignature":true}`
	var got owtp.ConnectConfig
	must(t, json.Unmarshal([]byte(in), &got))
	want := owtp.ConnectConfig{Address: "h:1", ConnectType: owtp.MQ, Account: "a", Password: "p", Exchange: "e", WriteQueueName: "w",
		ReadQueueName: "r", EnableSSL: true, ReadBufferSize: 1, WriteBufferSize: 2, EnableKeyAgreement: true, EnableSignature: true}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %v, want %v", got, want)
	}
}

func TestPortedNodeBasics(t *testing.T) {
	key := owtp.RandomPrivateKey()
	cert, err := owtp.NewCertificate(key)
	must(t, err)
	if private, public := cert.KeyPair(); private != key || public == "" || len(cert.PublicKeyBytes()) != 64 || len(cert.PrivateKeyBytes()) != 32 {
		t.Error("a certificate does not give back the key that it was made of")
	}
	n := owtp.NewOWTPNode(cert, 0, 0)
	defer n.Close()
	if n.NodeID() != cert.ID() || n.Certificate().ID() != cert.ID() || n.Peerstore() == nil {
		t.Error("the node is not the certificate's, or it has no peerstore")
	}
	if a, b := owtp.RandomOWTPNode(), owtp.RandomOWTPNode(); a.NodeID() == b.NodeID() {
		t.Error("two random nodes have one ID")
	} else {
		a.Close()
		b.Close()
	}
}

func TestPortedPeerstore(t *testing.T) {
	m, err := owtp.NewSessionManager("memory", &session.ManagerConfig{Gclifetime: 10, Maxlifetime: 100, SessionIDPrefix: "x"})
	must(t, err)
	defer m.Close()
	info := owtp.PeerInfo{ID: "peer", Config: owtp.ConnectConfig{Address: "h:1", ConnectType: owtp.MQ, Password: "hunter2"}}
	must(t, m.SavePeer(info))
	if got := m.PeerInfo("peer"); got.ID != "peer" || got.Config.Address != "h:1" || got.Config.Password != "" {
		t.Errorf("saved peer came back as %v; no store may hold a password", got)
	}
	if got := m.PeerInfo("nobody"); got.ID != "" {
		t.Errorf("an unknown peer is %v", got)
	}
	must(t, m.Put("peer", "a", 7))
	must(t, m.Put("peer", "s", "text"))
	if m.Get("peer", "a") != 7 || m.GetString("peer", "s") != "text" || m.Get("peer", "none") != nil {
		t.Error("what was put does not come back")
	}
	must(t, m.Delete("peer", "a"))
	if m.Get("peer", "a") != nil || m.GetString("peer", "s") != "text" {
		t.Error("Delete removed too much or too little")
	}
	must(t, m.Destroy("peer"))
	if m.GetString("peer", "s") != "" {
		t.Error("Destroy left something")
	}
}

func TestPortedPeerAndContext(t *testing.T) {
	eachWay(t, allWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		type seen struct {
			peer          *owtp.Peer
			pid, method   string
			remote, value string
			transport     string
			proved        bool
		}
		got := make(chan seen, 1)
		must(t, s.host.HandleFunc("look", func(ctx *owtp.Context) {
			got <- seen{ctx.Peer, ctx.PID, ctx.Method, ctx.RemoteAddress, ctx.Params().Get("a.b").String(), ctx.Transport(), ctx.Proved()}
			ctx.Response(map[string]int{"n": 1}, 600, "mine")
		}))
		s.connect(t)
		resp := answer(t, s.client, "testhost", "look", map[string]any{"a": map[string]string{"b": "deep"}})
		if resp.Status != 600 || resp.Msg != "mine" || resp.JsonData().Get("n").Int() != 1 || resp.OK() || owtp.StatusOf(resp.Err()) != 600 {
			t.Errorf("response %+v", resp)
		}
		c := within(t, got, "the handler")
		if c.method != "look" || c.value != "deep" || c.transport != w.connect || c.proved != w.proved() || c.peer.PID() != c.pid {
			t.Errorf("context %+v", c)
		}
		if w.proved() != (c.pid == s.client.NodeID()) {
			t.Errorf("PID is %s, the client is %s", c.pid, s.client.NodeID())
		}
		if c.peer.IsHost() || c.peer.RemoteAddr().String() != c.remote || c.peer.ConnectConfig().ConnectType != w.connect || c.peer.EnableKeyAgreement() != (w.suite != "" || w.sign && !w.exchanges()) {
			t.Errorf("peer: host %v, remote %v and %v, config %v, sealed %v", c.peer.IsHost(), c.peer.RemoteAddr(), c.remote, c.peer.ConnectConfig(), c.peer.EnableKeyAgreement())
		}
		if c.peer.IsConnected() != (w.connect != owtp.HTTP) {
			t.Errorf("IsConnected is %v", c.peer.IsConnected())
		}
		// The other end sees the server.
		if online := s.client.OnlinePeers(); (len(online) == 1) == w.exchanges() {
			t.Errorf("%d online peers", len(online))
		} else if len(online) == 1 && (!online[0].IsHost() || online[0].Name != "testhost" || online[0] != s.client.GetOnlinePeer("testhost")) {
			t.Errorf("online peer %v", online[0].PID())
		}
		if !s.client.IsConnectPeer("testhost") || s.client.IsConnectPeer("elsewhere") || s.client.GetOnlinePeer("elsewhere") != nil {
			t.Error("IsConnectPeer or GetOnlinePeer is wrong")
		}
		if w.proved() && !s.client.IsConnectPeer(s.host.NodeID()) {
			t.Error("the peer is not known under its node ID")
		}
	})
}

func TestPortedConnectAndCall(t *testing.T) {
	eachWay(t, someWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		must(t, s.host.HandleFunc("echo", echo))
		for range 2 { // the second time it is connected already
			var got string
			must(t, s.client.ConnectAndCall("testhost", s.dial, "echo", "x", true, func(r owtp.Response) { got = r.JsonData().String() }))
			if got != "x" {
				t.Errorf("got %q", got)
			}
		}
		s.client.ClosePeer("testhost")
		err := s.client.ConnectAndCall("testhost", owtp.ConnectConfig{Address: "nonsense", ConnectType: owtp.HTTP}, "echo", 1, true, func(owtp.Response) { t.Error("callback after an error") })
		wantErr(t, err, "nonsense")
	})
}

func TestPortedSessionManagers(t *testing.T) {
	if !slices.Contains(session.Providers(), "memory") {
		m, err := owtp.NewSessionManager("memory", nil)
		must(t, err)
		m.Close()
	}
	_, err := owtp.NewSessionManager("papyrus", nil)
	wantErr(t, err, "papyrus", "memory")
}
