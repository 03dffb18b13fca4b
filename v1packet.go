package owtp

import (
	"github.com/owtp-go/owtp/internal/legacy"
	"github.com/owtp-go/owtp/internal/wire"
)

// v1Response begins the response to a request: its method, nonce and version are
// the request's (V1-WIRE §2).
func (n *OWTPNode) v1Response(p *legacy.Packet) *legacy.Packet {
	return &legacy.Packet{Kind: legacy.Response, Method: p.Method, Nonce: p.Nonce, Time: n.now().Unix(), Version: p.Version}
}

// v1Refusal is a response in the clear that no handler gave.
func (n *OWTPNode) v1Refusal(p *legacy.Packet, r *refusal) *legacy.Packet {
	out := n.v1Response(p)
	result := legacy.Result{Status: r.status, Msg: clip(r.msg, wire.MaxMessage)}
	out.Data, _ = result.Append(nil) // without a result it always encodes
	return out
}
