package nats

import (
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/owtp-go/owtp/transport"
)

// Headers of messages. Everything in them is the sender's word and proved by
// nothing; what has to be believed is in the packet.
const (
	headerType    = "Content-Type"
	headerExpires = "Owtp-Expires" // whole seconds for which the sender waits; of a request
	headerOneWay  = "Owtp-One-Way" // "1": no answer is wanted but that the request was taken
	headerReply   = "Owtp-Reply"   // of a durable request, whose reply subject is for the stream's receipt
	headerStatus  = "Owtp-Status"  // of an answer that is no packet
)

// The content types are those of HTTP (PROTOCOL §7).
const (
	typeBinary = "application/owtp"
	typeJSON   = "application/owtp+json"
)

// taken is the status that answers a one-way request.
const taken = 202

// headerRoom is what the headers of a message add to it at most.
const headerRoom = 512

func contentType(f transport.Form) string {
	if f == transport.JSON {
		return typeJSON
	}
	return typeBinary
}

// formOf is the inverse of contentType.
func formOf(h natsgo.Header) (transport.Form, bool) {
	switch one(h, headerType) {
	case typeBinary:
		return transport.Binary, true
	case typeJSON:
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

// A form's headers are the same for almost every message: headers keeps those of
// the last one. They are shared and never changed.
type headers struct {
	last [transport.JSON + 1]atomic.Pointer[lastHeader]
}

type lastHeader struct {
	seconds int64
	header  natsgo.Header
}

// of returns the headers of a message that nobody waits for after the given
// time; 0 is no such time.
func (hs *headers) of(f transport.Form, expires time.Duration) natsgo.Header {
	if f != transport.JSON {
		f = transport.Binary
	}
	seconds := seconds(expires)
	if last := hs.last[f].Load(); last != nil && last.seconds == seconds {
		return last.header
	}
	h := natsgo.Header{headerType: {contentType(f)}}
	if seconds > 0 {
		h[headerExpires] = []string{strconv.FormatInt(seconds, 10)}
	}
	hs.last[f].Store(&lastHeader{seconds, h})
	return h
}

// seconds rounds up.
func seconds(d time.Duration) int64 {
	return int64(d/time.Second) + min(int64(d%time.Second), 1)
}

// expiresOf returns for how long the sender of a request waits, at most most,
// which is also what an unreadable header means.
func expiresOf(h natsgo.Header, most time.Duration) time.Duration {
	n, err := strconv.ParseUint(one(h, headerExpires), 10, 63)
	if err != nil || n > uint64(math.MaxInt64/time.Second) {
		return most
	}
	return min(time.Duration(n)*time.Second, most)
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
	status, err := strconv.Atoi(one(msg.Header, headerStatus))
	if err != nil || status != taken && (status < 400 || status > 599) {
		return nil
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
