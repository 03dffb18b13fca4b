package nats

import (
	"strconv"
	"strings"

	natsgo "github.com/nats-io/nats.go"

	"github.com/owtp-go/owtp/transport"
)

// Headers of messages. A message of the binary form needs none of them, and most
// have none: they cost as much as the rest of a short message. Everything in them
// is the sender's word and proved by nothing; what has to be believed is in the
// packet.
const (
	headerType   = "Content-Type" // of the readable form, and may stand for the binary one
	headerOneWay = "Owtp-One-Way" // "1": no answer is wanted but that the request was taken
	headerReply  = "Owtp-Reply"   // of a durable request, whose reply subject is for the stream's receipt
	headerStatus = "Owtp-Status"  // of an answer that is no packet
)

// The content types are those of HTTP (PROTOCOL §3.5).
const (
	typeBinary = "application/owtp"
	typeJSON   = "application/owtp+json"
)

// taken is the status that answers a one-way request.
const taken = 202

// headerRoom is what the headers of a message add to it at most.
const headerRoom = 512

// readable are the headers of a message in the readable form. They are shared and
// never changed.
var readable = natsgo.Header{headerType: {typeJSON}}

func contentType(f transport.Form) string {
	if f == transport.JSON {
		return typeJSON
	}
	return typeBinary
}

func headerOf(f transport.Form) natsgo.Header {
	if f == transport.JSON {
		return readable
	}
	return nil
}

// formOf is the inverse of headerOf.
func formOf(h natsgo.Header) (transport.Form, bool) {
	values := h[headerType]
	switch {
	case len(values) == 0 || len(values) == 1 && values[0] == typeBinary:
		return transport.Binary, true
	case len(values) == 1 && values[0] == typeJSON:
		return transport.JSON, true
	}
	return 0, false
}

// one returns a header that is there exactly once, or nothing.
func one(h natsgo.Header, name string) string {
	if v := h[name]; len(v) == 1 {
		return v[0]
	}
	return ""
}

// refusalHeader marks an answer that is no packet. Its text is the body.
func refusalHeader(status int) natsgo.Header {
	if status != taken && (status < 400 || status > 599) {
		status = 400 // not one that a refusal has
	}
	return natsgo.Header{headerStatus: {strconv.Itoa(status)}}
}

// refusalOf reads what refusalHeader has marked, or returns nil.
func refusalOf(msg *natsgo.Msg) *transport.Refusal {
	text := one(msg.Header, headerStatus)
	if text == "" {
		return nil
	}
	status, err := strconv.Atoi(text)
	if err != nil || status != taken && (status < 400 || status > 599) {
		return &transport.Refusal{Status: 415, Reason: "the answer is no OWTP message"}
	}
	return &transport.Refusal{Status: status, Reason: line(string(msg.Data[:min(len(msg.Data), maxReason)]))}
}

// maxReason bounds a refusal's text in both directions, as over HTTP.
const maxReason = 200

// line returns the first line of s with nothing in it that could play tricks in
// a log or on a terminal.
func line(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	if len(s) > maxReason {
		s = s[:maxReason]
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s))
}

// noResponders is the broker's word that nobody has subscribed to a subject.
func noResponders(msg *natsgo.Msg) bool {
	return len(msg.Data) == 0 && msg.Header != nil && one(msg.Header, "Status") == "503"
}
