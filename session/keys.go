package session

import (
	"fmt"
	"net/url"
	"strings"
)

const (
	// UserPrefix begins every key of a [Manager]: user sessions.
	UserPrefix = "s/"

	// NodePrefix begins every key of a node's own state. No manager reads,
	// lists, flushes or destroys there.
	NodePrefix = "n/"
)

// EscapeKey makes a part of a key from a string of any content: letters,
// digits, '-', '_' and '~' stay, every other octet becomes %XX. The result has
// no slash, dot, space or quote, so that parts joined by slashes cannot run
// into each other and no store finds a meaning in what a peer chose. Two
// different strings have different results. A string longer than [MaxKeyLen]
// is cut off behind that length, so that it is still too long for a key and
// costs no more than one.
func EscapeKey(s string) string {
	if len(s) > MaxKeyLen {
		s = s[:MaxKeyLen+1]
	}
	plain := 0
	for plain < len(s) && isPlain(s[plain]) {
		plain++
	}
	if plain == len(s) {
		return s
	}
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(s) + 16)
	for i := 0; i < len(s); i++ {
		if c := s[i]; isPlain(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}

func isPlain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '~'
}

// UnescapeKey undoes [EscapeKey].
func UnescapeKey(part string) (string, error) {
	s, err := url.PathUnescape(part)
	if err != nil {
		return "", fmt.Errorf("%w: %q is not escaped", ErrKey, part)
	}
	return s, nil
}

// userPrefix is what every key of a manager with this prefix begins with. The
// slash keeps the prefixes "a" and "ab" apart.
func userPrefix(sessionIDPrefix string) string {
	return UserPrefix + EscapeKey(sessionIDPrefix) + "/"
}

func userKey(prefix, id string) (string, error) {
	if id == "" {
		return "", fmt.Errorf("%w: the session ID is empty", ErrKey)
	}
	key := prefix + EscapeKey(id)
	return key, CheckKey(key)
}
