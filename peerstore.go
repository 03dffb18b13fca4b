package owtp

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/memory"
)

// A Peerstore keeps what a program stores of peers, by peer ID. A
// [SessionManager] is one; a hand-written one holds user data only. Its methods
// must be safe for concurrent use.
type Peerstore interface {
	SavePeer(peer PeerInfo) error
	PeerInfo(id string) PeerInfo // the zero PeerInfo if it is not known
	Get(id, key string) any      // nil if there is none
	GetString(id, key string) string
	Put(id, key string, val any) error
	Delete(id, key string) error
	Destroy(id string) error
}

// A SessionManager keeps user sessions in a store; see package session. It can
// be a node's Peerstore.
type SessionManager struct {
	*session.Manager
}

// NewSessionManager opens the store that is registered under a name: "memory",
// or that of an imported package. A nil cfg means all defaults. Start GC in a
// goroutine of its own, and Close the manager at the end.
func NewSessionManager(provider string, cfg *session.ManagerConfig) (*SessionManager, error) {
	session.RegisterOnce("memory", memory.Open)
	m, err := session.NewManager(context.Background(), provider, cfg)
	if err != nil {
		return nil, fmt.Errorf("owtp: %w", err)
	}
	return &SessionManager{m}, nil
}

// peerField is the field of a user session that SavePeer writes.
const peerField = "internal_peer"

// SavePeer stores how a peer was connected, without its password.
func (m *SessionManager) SavePeer(peer PeerInfo) error {
	b, err := json.Marshal(peer.Config)
	if err != nil {
		return err
	}
	return m.Put(peer.ID, peerField, b)
}

// PeerInfo returns what SavePeer stored.
func (m *SessionManager) PeerInfo(id string) PeerInfo {
	b, ok := m.Get(id, peerField).([]byte)
	if !ok {
		return PeerInfo{}
	}
	info := PeerInfo{ID: id}
	if err := json.Unmarshal(b, &info.Config); err != nil {
		return PeerInfo{}
	}
	return info
}
