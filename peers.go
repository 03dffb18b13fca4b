package owtp

import (
	"slices"

	"github.com/owtp-go/owtp/internal/wire"
)

// A peerEntry is a peer with open connections. It lives from the first of them
// to the last; a peer that comes back has a new one.
type peerEntry struct {
	info   PeerInfo
	links  []*link // that new calls may find, the newest last
	live   int     // links whose handlers have not all ended
	told   bool    // the open handler was called or is about to be
	opened chan struct{}
	gone   chan struct{}   // closed when the close handler has returned
	before <-chan struct{} // gone of the peer's life before, or nil
}

// afterwards waits until the close handler of the peer's life before has
// returned, so that the program hears of one life after the other.
func (e *peerEntry) afterwards() {
	if e.before != nil {
		<-e.before
	}
}

// peerHandlers are the program's functions that are told about peers.
type peerHandlers struct {
	open   func(*OWTPNode, PeerInfo)
	close  func(*OWTPNode, PeerInfo)
	reload func(*OWTPNode, PeerInfo) PeerInfo
}

// SetOpenHandler sets what is called once for each peer whose first long
// connection opens, on a goroutine of its own. Peers that are open already are
// told at once. If a peer comes back, its open handler runs when the close
// handler of its life before has returned; its requests do not wait for that.
// HTTP has no connections and calls it never.
func (n *OWTPNode) SetOpenHandler(h func(n *OWTPNode, peer PeerInfo)) {
	if n.err != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handlers.open = h
	for _, e := range n.peers {
		n.tellOpen(e)
	}
}

// SetCloseHandler sets what is called once for each peer whose last long
// connection has ended, after its handlers ended or were cancelled and after
// the open handler has returned.
func (n *OWTPNode) SetCloseHandler(h func(n *OWTPNode, peer PeerInfo)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handlers.close = h
}

// SetReloadPeerInfoHandler sets what is asked before a reconnect: it is given
// what is known of the peer and may return a new Config, such as another
// address. It cannot change the peer's identity or its flags.
func (n *OWTPNode) SetReloadPeerInfoHandler(h func(n *OWTPNode, peer PeerInfo) PeerInfo) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handlers.reload = h
}

// tellOpen is called with the lock held.
func (n *OWTPNode) tellOpen(e *peerEntry) {
	h := n.handlers.open
	if e.told || h == nil {
		return
	}
	e.told, e.opened = true, make(chan struct{})
	info := e.info
	if !n.spawn(func() {
		defer close(e.opened)
		e.afterwards()
		n.guardCallback("open handler", func() { h(n, info) })
	}) {
		close(e.opened)
	}
}

// register makes a link known under its peer's ID. A peer that has too many
// connections gets no further one.
func (n *OWTPNode) register(l *link) *refusal {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closing.Load() {
		return refuseClosing
	}
	if l.ended() { // it has been, or will never be, unregistered
		return refuse(ErrNetworkDisconnected, 0, "the connection has ended already")
	}
	e := n.peers[l.peer.id]
	if e == nil {
		e = &peerEntry{info: l.peer.info(), gone: make(chan struct{})}
		if last := n.leaving[l.peer.id]; last != nil {
			e.before = last.gone
		}
		n.peers[l.peer.id] = e
	} else if len(e.links) >= n.cfg.Limits.MaxConnsPerPeer {
		return refuse(ErrTooManyRequests, 0, "too many connections of one peer")
	}
	l.entry = e
	e.links = append(e.links, l)
	e.live++
	n.tellOpen(e)
	return nil
}

// unregister makes a link that has ended unknown, so that no call finds it.
func (n *OWTPNode) unregister(l *link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := l.entry
	if e == nil {
		return
	}
	n.v1Forget(l)
	if i := slices.Index(e.links, l); i >= 0 {
		e.links = slices.Delete(e.links, i, i+1)
	}
	if len(e.links) == 0 && n.peers[l.peer.id] == e {
		delete(n.peers, l.peer.id)
		n.leaving[l.peer.id] = e
	}
}

// forgetLink is called when a link and its handlers have ended. With the last
// one the peer is gone: the close handler runs, and what was kept for an
// anonymous peer is destroyed.
func (n *OWTPNode) forgetLink(l *link) {
	n.unregister(l)
	n.mu.Lock()
	e := l.entry
	l.entry = nil
	if e == nil {
		n.mu.Unlock()
		return
	}
	e.live--
	last := e.live == 0 && len(e.links) == 0
	h, opened := n.handlers.close, e.opened
	if last {
		e.told = true // too late to be told
	}
	n.mu.Unlock()
	if !last {
		return
	}
	defer n.left(l.peer.id, e)
	e.afterwards()
	if opened != nil {
		<-opened
	}
	if h != nil {
		n.guardCallback("close handler", func() { h(n, e.info) })
	}
	if l.peer.key == nil {
		if err := n.Peerstore().Destroy(l.peer.id); err != nil {
			n.log.Warn("session of an anonymous peer is not destroyed", "err", err)
		}
	}
}

// left is told that nothing of a peer's life is left to be told.
func (n *OWTPNode) left(peerID string, e *peerEntry) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.leaving[peerID] == e { // and not a later life's
		delete(n.leaving, peerID)
	}
	close(e.gone)
}

// serveLink runs a link until it and its handlers have ended.
func (n *OWTPNode) serveLink(l *link, first []*wire.Packet) {
	n.mu.Lock()
	n.links[l] = struct{}{}
	n.startSweeping()
	n.mu.Unlock()
	l.read(first)
	n.mu.Lock()
	delete(n.links, l)
	n.mu.Unlock()
	if l.remote != nil {
		l.remote.lost(l)
	}
	n.forgetLink(l)
}

// OnlinePeers returns the peers with open long connections, but for those that
// are going away.
func (n *OWTPNode) OnlinePeers() []*Peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	var peers []*Peer
	for _, e := range n.peers {
		if l := e.newest(); l.usable() {
			peers = append(peers, l.peer)
		}
	}
	return peers
}

// newest returns the newest link that new calls may take or, if there is none,
// the newest of all. It is called with the node's lock held.
func (e *peerEntry) newest() *link {
	for _, l := range slices.Backward(e.links) {
		if l.usable() {
			return l
		}
	}
	return e.links[len(e.links)-1]
}

// GetOnlinePeer returns the peer of that ID or name that has an open long
// connection, or nil.
func (n *OWTPNode) GetOnlinePeer(pid string) *Peer {
	if l := n.linkOf(pid); l != nil {
		return l.peer
	}
	return nil
}

// linkOf returns the newest link of a peer, by ID or name.
func (n *OWTPNode) linkOf(pid string) *link {
	n.mu.Lock()
	r := n.remotes[pid]
	e := n.peers[pid]
	var l *link
	if e != nil {
		l = e.newest()
	} else {
		l = n.v1Links[pid]
	}
	n.mu.Unlock()
	if r != nil {
		if c := r.currentLink(); c != nil {
			return c
		}
	}
	return l
}

// IsConnectPeer reports whether calls to the peer, by ID or name, have
// somewhere to go: over HTTP after Connect, otherwise while a connection is
// open.
func (n *OWTPNode) IsConnectPeer(pid string) bool {
	if l := n.linkOf(pid); l != nil && l.usable() {
		return true
	}
	r := n.remoteOf(pid)
	return r != nil && r.exch != nil || n.callerOf(pid) != nil
}

// guardCallback runs a function of the program's and logs its panic.
func (n *OWTPNode) guardCallback(what string, f func()) {
	defer func() {
		if v := recover(); v != nil {
			n.log.Error(what+" panicked", "panic", v, "stack", stack())
		}
	}()
	f()
}
