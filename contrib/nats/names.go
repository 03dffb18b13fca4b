package nats

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/owtp-go/owtp/transport"
)

// Subjects that belong to a shared queue, whose name follows.
const (
	durablePrefix = "owtp.durable." // what its stream keeps
	deadPrefix    = "owtp.dead."    // what nobody could handle
)

// group is the queue group in which the replicas of a node share its queue.
const group = "owtp"

// maxName leaves room for a prefix and a token in the 255 octets of a queue's
// name (PROTOCOL §3.1), which is far less than a server takes.
const maxName = 200

// checkName returns an error for what is no plain subject: patterns and spaces
// would make a message go elsewhere, or be commands of their own.
func checkName(what, name string) error {
	bad := func(why string) error { return fmt.Errorf("owtp: the %s %.80q %s", what, name, why) }
	switch {
	case name == "":
		return fmt.Errorf("owtp: the %s has no name", what)
	case len(name) > maxName:
		return bad(fmt.Sprintf("is longer than %d octets", maxName))
	case name[0] == '$' || name[0] == '_':
		return bad("begins as the subjects of the server do")
	case name[0] == '.' || name[len(name)-1] == '.' || strings.Contains(name, ".."):
		return bad("has an empty part before, after or between its dots")
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == '*' || c == '>' {
			return bad("has something else in it than letters, digits and signs of ASCII, or one of * and >")
		}
	}
	return nil
}

// checkShared is checkName for a queue that a program names.
func checkShared(what, name string) error {
	for _, own := range []string{transport.ReplyQueuePrefix, transport.OwnQueuePrefix, durablePrefix, deadPrefix} {
		if strings.HasPrefix(name, own) {
			return fmt.Errorf("owtp: the %s %.80q begins with %s, which is kept for queues that are made by themselves", what, name, own)
		}
	}
	return checkName(what, name)
}

// ownNames draws the names of an endpoint's own queues, and of its inbox: where the
// server answers to it, which no peer ever sees.
func ownNames(node string) (own, reply, inbox string, err error) {
	if node == "" {
		return "", "", "", errors.New("owtp: the node has no name for its queues")
	}
	for _, c := range node {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return "", "", "", fmt.Errorf("owtp: the node's name in queues is %.80q; it may have letters and digits only", node)
		}
	}
	name := node + "." + rand.Text()
	reply = transport.ReplyQueuePrefix + name
	return transport.OwnQueuePrefix + name, reply, transport.ReplyQueuePrefix + node + "." + rand.Text(), checkName("reply queue", reply)
}

const tokenLen = 16

// newReply returns the subject that a new request wants its answer at: the reply
// queue, a token, and for how many seconds its sender waits.
//
// The token tells one request's answer from another's. Who has not seen the
// request cannot guess it: another peer that may publish answers too must not be
// able to answer in its place.
func newReply(queue string, expires time.Duration) (subject, token string) {
	var random [tokenLen * 6 / 8]byte
	rand.Read(random[:])
	b := make([]byte, 0, 128)
	b = append(append(b, queue...), '.')
	b = base64.RawURLEncoding.AppendEncode(b, random[:])
	if expires > 0 {
		b = strconv.AppendInt(b, int64((expires-1)/time.Second)+1, 10)
	}
	subject = string(b)
	return subject, subject[len(queue)+1:][:tokenLen]
}

// tokenOf returns the token in the subject of an answer that came to a queue.
func tokenOf(subject, queue string) string {
	if len(subject) < len(queue)+1+tokenLen {
		return ""
	}
	return subject[len(queue)+1:][:tokenLen]
}

// splitReply parts the subject that a request wants its answer at into the reply
// queue and what follows it. Others than reply queues are not answered: a node
// must not be made to publish just anywhere.
func splitReply(subject string) (queue, last string, ok bool) {
	dot := strings.LastIndexByte(subject, '.')
	if dot < 0 || !isMark(subject[dot+1:]) || !isReplyQueue(subject[:dot]) {
		return "", "", false
	}
	return subject[:dot], subject[dot+1:], true
}

func isReplyQueue(name string) bool {
	return strings.HasPrefix(name, transport.ReplyQueuePrefix) && checkName("", name) == nil
}

// isMark reports whether the last part of a reply subject has a token, with or
// without a number.
func isMark(s string) bool {
	if len(s) < tokenLen || len(s) > tokenLen+maxDigits {
		return false
	}
	for i := range len(s) {
		c := s[i]
		digit := c >= '0' && c <= '9'
		letter := (c|0x20) >= 'a' && (c|0x20) <= 'z' || c == '-' || c == '_'
		if !digit && (!letter || i >= tokenLen) {
			return false
		}
	}
	return true
}

// maxDigits of seconds: three hundred years.
const maxDigits = 10

// patience returns for how long the sender of a request waits, at most most,
// which is also what it means that the mark does not say.
func patience(mark string, most time.Duration) time.Duration {
	n, err := strconv.ParseUint(mark[min(tokenLen, len(mark)):], 10, 34)
	if err != nil || n > uint64(most/time.Second) {
		return most
	}
	return time.Duration(n) * time.Second
}
