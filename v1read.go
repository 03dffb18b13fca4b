package owtp

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"

	"github.com/owtp-go/owtp/internal/legacy"
	"github.com/owtp-go/owtp/internal/wire"
)

// read opens the data, if it is sealed, and makes parameters of it.
func (q *v1Request) read() *refusal {
	text, err := q.p.Text()
	if err != nil {
		return v1Garbled
	}
	switch {
	case q.response == nil:
		return q.plain(text)
	case q.request == nil:
		switch {
		case q.p.Method != legacy.MethodAgree || text != "":
			return v1NotOpened // sealed for an agreement that nobody here knows
		case !q.in.sessions.first(q.p):
			return v1NoKey
		}
		return nil
	}
	return q.open(text)
}

// plain takes parameters that are not sealed. What is a string may hold JSON;
// what is not, must be.
func (q *v1Request) plain(text string) *refusal {
	isString := len(q.p.Data) > 0 && q.p.Data[0] == '"'
	data, err := v1JSON([]byte(text))
	switch {
	case err == nil && text != "":
		q.data = data
	case isString:
		q.data = quoted(text)
	case text == "":
		q.data = []byte("null")
	default:
		return v1Garbled
	}
	return nil
}

// open decrypts. The check value travels in clear and there is no MAC, so that
// only the form of what comes out tells the sender from somebody who has seen
// its packets: it must be JSON, and it must be there.
func (q *v1Request) open(sealed string) *refusal {
	if sealed == "" {
		// Not even a signature says that the sender has sealed nothing: it
		// covers no keys, and is as good on a packet in the clear, to any node.
		// Of version 1's nodes only an empty string looks so; none seals null.
		if !q.signed || !q.in.rules.bareText || q.p.Version == 0 {
			return v1NotOpened
		}
		q.data = []byte("null")
		return nil
	}
	var text []byte
	err := q.request.use(func(s *legacy.Session) (err error) {
		text, err = s.Open(sealed, q.p.Version, q.p.Nonce)
		return err
	})
	if err != nil || len(text) == 0 || !q.signed && answers(text) {
		return v1NotOpened
	}
	if q.data, err = v1JSON(text); err != nil {
		if !q.in.rules.bareText || !utf8.Valid(text) {
			return v1NotOpened
		}
		q.data, q.bare = quoted(string(text)), true
	}
	q.peer.sealed = true
	if q.in.line != nil && q.in.line.own == nil {
		return nil
	}
	q.in.sessions.keep(q.request)
	q.request.use(func(s *legacy.Session) error {
		q.n.gate.remember(q.from(), v1Source(s.Initiator().ID()))
		return nil
	})
	return nil
}

// answers reports whether a text is that of a response. One key seals both
// directions, and whoever sees a check value can have this node seal a refusal
// under a nonce of his choice: sent back, it must not be taken for a request.
func answers(text []byte) bool {
	_, err := legacy.ParseResult(text)
	return err == nil
}

// trust takes the initiator of an agreement for proved, where the listener was
// told to. Only who has its key, or this node's, could seal what has opened.
func (q *v1Request) trust() *refusal {
	q.request.use(func(s *legacy.Session) error {
		q.peer.key = s.Initiator()
		return nil
	})
	id := q.peer.key.ID()
	q.peer.id = v1ID(id)
	if !q.admits(id) {
		return v1Unsigned
	}
	return nil
}

// v1JSON returns a text without the white space around it if it is a JSON value
// that a packet of this version may hold.
func v1JSON(text []byte) ([]byte, error) {
	text = bytes.Trim(text, " \t\r\n")
	if len(text) == 0 {
		return nil, wire.ErrMalformed
	}
	return text, (&wire.Packet{Data: text}).CheckData()
}

func quoted(text string) []byte {
	b, _ := json.Marshal(text) // a string always encodes
	return b
}
