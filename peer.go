package owtp

import (
	"fmt"
	"net"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/transport"
)

// PeerInfo is what the open and close handlers are told.
type PeerInfo struct {
	ID     string        // node ID if the peer is proved, otherwise random
	Name   string        // given to Connect, if this node dialled
	Config ConnectConfig // of the connection
}

// String leaves secrets out.
func (p PeerInfo) String() string {
	return fmt.Sprintf("{ID:%s Name:%s Config:%v}", p.ID, p.Name, p.Config)
}

// A Peer is the other end of a connection or of an HTTP exchange. It is
// immutable but for what its methods ask, and safe for concurrent use.
type Peer struct {
	// Name is what the peer was called in Connect, if this node dialled.
	Name string

	id     string
	key    *identity.PublicKey // nil if anonymous
	config *ConnectConfig      // of the listener, or that dialled; never changed
	dialed bool
	local  string
	remote string
	sealed bool
	kind   transport.Kind
	link   *link // nil on HTTP
}

// PID returns the peer's ID.
func (p *Peer) PID() string { return p.id }

// Proved reports whether the ID is a node ID that the peer has proved.
func (p *Peer) Proved() bool { return p.key != nil }

// IsHost reports whether this node dialled the peer.
func (p *Peer) IsHost() bool { return p.dialed }

// IsConnected reports whether the connection is open. Over HTTP it is false on
// the listening side, since nothing can be sent to the peer.
func (p *Peer) IsConnected() bool {
	if p.link == nil {
		return p.dialed || p.kind == transport.MQ
	}
	return !p.link.ended()
}

// LocalAddr returns this end's address.
func (p *Peer) LocalAddr() net.Addr { return addr(p.local) }

// RemoteAddr returns the other end's address.
func (p *Peer) RemoteAddr() net.Addr { return addr(p.remote) }

// ConnectConfig returns the configuration of the connection.
func (p *Peer) ConnectConfig() ConnectConfig {
	if p.config == nil {
		return ConnectConfig{}
	}
	return *p.config
}

// EnableKeyAgreement reports whether what passes is sealed.
func (p *Peer) EnableKeyAgreement() bool { return p.sealed }

// Format prints who the peer is, whatever the verb, and leaves secrets out.
func (p Peer) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "Peer{ID:%s Name:%s Config:%v}", p.id, p.Name, p.ConnectConfig())
}

func (p *Peer) info() PeerInfo { return PeerInfo{ID: p.id, Name: p.Name, Config: p.ConnectConfig()} }

type addr string

func (a addr) Network() string { return "owtp" }
func (a addr) String() string  { return string(a) }
