package owtp

import (
	"context"
	"net/http"
	"time"

	"github.com/owtp-go/owtp/internal/legacy"
	"github.com/owtp-go/owtp/transport"
)

// answerV1 answers one message of version 1 that is no part of a connection.
func (f *listener) answerV1(ctx context.Context, peer *Peer, m transport.Message) (transport.Message, error) {
	if f.spec.v1 == nil {
		return transport.Message{}, &transport.Refusal{Status: http.StatusUnsupportedMediaType, Reason: "version 1 is not spoken here"}
	}
	in := &v1Inbound{rules: f.spec.v1, sessions: f.v1, peer: peer, redelivered: m.Redelivered, accepted: f.kind == transport.MQ && !m.Late}
	if f.kind == transport.HTTP {
		if complaint := in.announce(m.Announced); complaint != "" {
			return v1Complaint(complaint), nil
		}
		if len(m.Data) == 0 {
			return v1Complaint("body is empty"), nil
		}
	}
	silence := transport.Message{Form: transport.Legacy}
	p, err := legacy.ParsePacket(m.Data, f.node.cfg.Limits.MaxMessage)
	if err != nil {
		f.node.log.Debug("version 1 packet cannot be read", "remote", peer.remote, "err", err)
		if f.kind == transport.MQ { // to the dead letters, where somebody may look for it
			return transport.Message{}, badMessage(err)
		}
		return silence, nil
	}
	answer, _ := f.node.serveV1(ctx, in, p)
	if answer == nil {
		return silence, nil
	}
	data, err := answer.Append(nil)
	return transport.Message{Form: transport.Legacy, Data: data}, err
}

// v1Complaint is what version 1 answers over HTTP to what it does not take for
// its own.
func v1Complaint(text string) transport.Message {
	return transport.Message{Form: transport.Text, Data: []byte(text + "\n")}
}

// announce takes the key in header a, which proves nothing, and returns what is
// wrong with it.
func (in *v1Inbound) announce(text string) (complaint string) {
	if text == "" {
		if in.rules.sign {
			return "enableSignature is true, http header should have parameter: a"
		}
		return ""
	}
	var err error
	if in.announced, err = legacy.ParseKey(text); err != nil {
		return legacy.Complaint(text)
	}
	return ""
}

// v1Sweep lets the secrets of agreements end that nobody asks for.
func (n *OWTPNode) sweepV1() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for v := range n.v1Sessions {
		v.sweep(time.Now())
	}
}

func (n *OWTPNode) forgetV1(v *v1Sessions) {
	n.mu.Lock()
	delete(n.v1Sessions, v)
	n.mu.Unlock()
	v.erase()
}
