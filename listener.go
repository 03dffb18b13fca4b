package owtp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/httpt"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/internal/wst"
	"github.com/owtp-go/owtp/transport"
)

// A listener is where a node meets one transport. What is received goes through
// the demands of its configuration before anything else of the node sees it.
type listener struct {
	node *OWTPNode
	spec *spec
	kind transport.Kind
	tl   transport.Listener // nil for a face that somebody else serves

	unnamed sync.Once // AllowPeers is not in force any more

	v1 *v1Sessions // of version 1's exchanges; nil unless AllowV1

	// For message queues.
	remote *remote       // whose answering side this is; nil for what Listen made
	bound  chan struct{} // closed once tl is set; nil where nobody needs to wait
}

// Listen binds a port and returns once it is bound. A node may listen several
// times, on several transports, with the same handlers.
func (n *OWTPNode) Listen(cfg ConnectConfig) error {
	return n.ListenContext(context.Background(), cfg)
}

// ListenContext is Listen with a context that bounds the binding.
func (n *OWTPNode) ListenContext(ctx context.Context, cfg ConnectConfig) error {
	if err := n.use(); err != nil {
		return err
	}
	l, tcfg, tr, err := n.newListener(cfg)
	if err != nil {
		return err
	}
	l.bound = make(chan struct{})
	if l.tl, err = tr.Listen(ctx, tcfg, l); err != nil {
		return fmt.Errorf("owtp: listening on %s %q: %w", cfg.ConnectType, tcfg.Address, bare{err})
	}
	l.name()
	close(l.bound)
	n.mu.Lock()
	n.listeners[l] = struct{}{}
	n.startSweeping()
	n.mu.Unlock()
	if n.closing.Load() {
		l.close()
		return errNodeClosed
	}
	n.warnIfOpen(l, l.tl.Addr())
	n.told.Info("listening", "type", cfg.ConnectType, "address", l.tl.Addr().String(), "mode", cfg.mode().String())
	return nil
}

func (n *OWTPNode) newListener(cfg ConnectConfig) (*listener, transport.Config, transport.Transport, error) {
	s, err := cfg.checkListen()
	if err != nil {
		return nil, transport.Config{}, nil, err
	}
	if s.broker != nil && s.ReadQueueName == "" {
		s.ReadQueueName = nodeQueue(n.NodeID())
	}
	tr := s.transport()
	l := &listener{node: n, spec: s, kind: tr.Kind()}
	if s.v1 != nil {
		if s.v1.key == nil {
			s.v1.key = n.local.Key
		}
		l.v1 = n.newV1Sessions(s.v1.key, false)
	}
	return l, n.transportConfig(s), tr, nil
}

// name makes the peers of its configuration the node's named ones.
func (l *listener) name() {
	n := l.node
	n.named.add(l.spec.allowedIDs()...)
	n.named.addText(l.spec.v1.ids()...)
	if l.v1 != nil {
		n.mu.Lock()
		n.v1Sessions[l.v1] = struct{}{}
		n.mu.Unlock()
	}
}

func (n *OWTPNode) transportConfig(s *spec) transport.Config {
	l := n.cfg.Limits
	linger := time.Duration(0)
	if !n.state.shared { // its callers send to its own queue
		linger = replicaLinger
	}
	return transport.Config{
		Address: s.Address, Path: s.path, TLS: s.TLS, MaxMessage: l.MaxMessage, MaxHeader: l.MaxHeader,
		HandshakeTimeout: l.HandshakeTimeout, BodyTimeout: l.BodyTimeout, IdleTimeout: l.IdleTimeout,
		Receiving: n.receiving, MaxConns: l.MaxConns, MaxConnsPerPeer: 32 * l.MaxConnsPerPeer,
		ReadBufferSize: s.ReadBufferSize, WriteBufferSize: s.WriteBufferSize,
		AllowedOrigins: s.AllowedOrigins, AllowedHosts: s.AllowedHosts, TrustedProxies: s.proxies,
		Account: s.Account, Password: s.Password, Exchange: s.Exchange,
		WriteQueueName: s.WriteQueueName, ReadQueueName: s.ReadQueueName, Name: n.NodeID(),
		Legacy: s.AllowV1, MaxDeliveries: l.MaxDeliveries, MaxQueueLength: l.MaxQueueLength, MaxQueueTime: n.cfg.MaxQueueTime, OwnQueueLinger: linger, Logger: n.log,
	}
}

// warnIfOpen tells the log about a listener that anybody on the network may
// read, change and call.
func (n *OWTPNode) warnIfOpen(l *listener, a net.Addr) {
	if l.spec.mode() != wire.ModeOpen || l.kind == transport.Memory {
		return
	}
	if ap, err := netip.ParseAddrPort(a.String()); err == nil && ap.Addr().Unmap().IsLoopback() {
		return
	}
	n.told.Warn("listening in open mode on an address that is not loopback: anybody on the network can call, read and change what passes; set EnableSignature or EnableKeyAgreement", "address", a.String())
}

// HTTPHandler returns the node's HTTP face, to mount in a server and mux of the
// program's. cfg is that of a listener; Address is not used. Close and Shutdown
// of the node end what runs through it, not the server.
func (n *OWTPNode) HTTPHandler(cfg ConnectConfig) (http.Handler, error) {
	return n.face(cfg, HTTP, httpt.NewHandler)
}

// WebsocketHandler is the same for WebSocket.
func (n *OWTPNode) WebsocketHandler(cfg ConnectConfig) (http.Handler, error) {
	return n.face(cfg, Websocket, wst.NewHandler)
}

func (n *OWTPNode) face(cfg ConnectConfig, connectType string, build func(transport.Config, transport.Handler) http.Handler) (http.Handler, error) {
	if err := n.use(); err != nil {
		return nil, err
	}
	if cfg.ConnectType != "" && cfg.ConnectType != connectType {
		return nil, fmt.Errorf("owtp: this handler is for connect type %q, not %q", connectType, cfg.ConnectType)
	}
	cfg.ConnectType = connectType
	if cfg.Address == "" {
		cfg.Address = ":0"
	}
	if cfg.EnableSSL {
		return nil, errors.New("owtp: EnableSSL is for the program's own server here")
	}
	l, tcfg, _, err := n.newListener(cfg)
	if err != nil {
		return nil, err
	}
	l.name()
	n.mu.Lock()
	n.startSweeping()
	n.mu.Unlock()
	return build(tcfg, l), nil
}

// CloseListener closes all listeners of a connect type and the connections that
// they accepted.
func (n *OWTPNode) CloseListener(connectType string) {
	n.mu.Lock()
	var closing []*listener
	for l := range n.listeners {
		if l.spec.ConnectType == connectType {
			closing = append(closing, l)
			delete(n.listeners, l)
		}
	}
	n.mu.Unlock()
	for _, l := range closing {
		l.close()
	}
}

// Listening reports whether the node listens with that connect type.
func (n *OWTPNode) Listening(connectType string) bool { return n.ListenerAddr(connectType) != "" }

// ListenerAddr returns the address of a listener of that connect type,
// host:port with the port that was really bound, or "".
func (n *OWTPNode) ListenerAddr(connectType string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	for l := range n.listeners {
		if l.spec.ConnectType == connectType {
			return l.tl.Addr().String()
		}
	}
	return ""
}

func (l *listener) close() {
	l.unnamed.Do(func() {
		l.node.named.remove(l.spec.allowedIDs()...)
		l.node.named.removeText(l.spec.v1.ids()...)
	})
	if l.tl != nil {
		l.tl.Close()
	}
	if l.v1 != nil {
		l.node.forgetV1(l.v1)
	}
}

// admits reports whether a peer of that ID may come in. It is asked with a
// claimed ID before anything expensive, and the proof follows for the same ID.
func (l *listener) admits(id identity.ID, remote string) bool {
	if l.remote != nil && l.remote.pinned() != id {
		l.node.log.Info("somebody else calls back", "peer", id.String(), "expected", l.remote.name)
		return false
	}
	if l.spec.allowed != nil && !l.spec.allowed[id] {
		l.node.log.Info("peer is not among the allowed", "peer", id.String(), "remote", remote)
		return false
	}
	if l.spec.Authorize != nil {
		if err := l.node.authorized(l.spec.Authorize, id.String(), remote); err != nil {
			l.node.log.Info("peer is not authorized", "peer", id.String(), "remote", remote, "err", err)
			return false
		}
	}
	return true
}

var errAuthorizePanicked = errors.New("Authorize panicked")

// authorized is what the program's Authorize says. One that panics lets nobody
// in, and who is refused by it learns no more than others.
func (n *OWTPNode) authorized(authorize func(peerID, remoteAddr string) error, peerID, remote string) error {
	err := errAuthorizePanicked
	n.guardCallback("Authorize", func() { err = authorize(peerID, remote) })
	return err
}

// demands returns the refusal of a packet of that mode, or nil (PROTOCOL §4).
func (l *listener) demands(m wire.Mode) *refusal {
	if l.remote != nil { // as strong as this side's own calls
		switch want := l.remote.mode(); {
		case want.Signed() && !m.Signed():
			return refuseUnsigned
		case want.Sealed() && !m.Sealed():
			return refuseUnsealed
		}
		return nil
	}
	restricted := l.spec.allowed != nil || l.spec.Authorize != nil
	switch {
	case l.spec.EnableSignature && !m.Signed(), restricted && m == wire.ModeOpen:
		return refuseUnsigned
	case l.spec.EnableKeyAgreement && !m.Sealed():
		return refuseUnsealed
	}
	return nil
}
