package wire

import (
	"encoding/binary"
	"math/bits"
	"unicode"
	"unicode/utf8"
)

// UnquoteJSON returns what the JSON string value, quotes included, stands for.
// The result lies in value unless there are escape sequences. Value is checked
// again, as this costs little and leaves no way to misuse the function.
func UnquoteJSON(value []byte) ([]byte, error) {
	s := jsonScanner{b: value}
	if len(value) > maxJSONOctets {
		s.fail(0, jsonMsgLength)
		return nil, s.err()
	}
	if s.open(0, '"', jsonMsgString) < 0 {
		return nil, s.err()
	}
	end, escaped := s.str(0)
	if end < 0 {
		return nil, s.err()
	}
	if end < len(value) {
		return nil, &SyntaxError{end, jsonMsgTrailing}
	}
	text := value[1 : end-1 : end-1]
	if escaped {
		text = appendUnescaped(make([]byte, 0, len(text)), text, false)
	}
	return text, nil
}

// AppendJSONString appends s to dst as a JSON string. Only what must be
// escaped is: the quote, the backslash and the control characters below 0x20,
// each in its shortest form. If s is not valid UTF-8 dst is returned as it was,
// with an error whose offset counts within s.
func AppendJSONString(dst []byte, s string) ([]byte, error) {
	const hex = "0123456789abcdef"
	old := len(dst)
	dst = append(dst, '"')
	done := 0 // s[:done] has been appended
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				return dst[:old], &SyntaxError{i, jsonMsgUTF8}
			}
			i += n
			continue
		}
		if jsonPlain[c] {
			i++
			continue
		}
		dst = append(dst, s[done:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		done = i
	}
	dst = append(dst, s[done:]...)
	return append(dst, '"'), nil
}

// jsonPlain marks the octets that stand for themselves in a string and need no
// further look: ASCII without control characters, quote and backslash.
var jsonPlain = func() (t [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// jsonSpecial sets the top bit of the octets of x that are not jsonPlain. Only
// the lowest bit set is to be trusted: a subtraction that underflows borrows
// from the octet above, but it does so only in an octet that is itself marked.
func jsonSpecial(x uint64) uint64 {
	const ones = 0x0101010101010101
	quote := (x ^ '"'*ones) - ones
	slash := (x ^ '\\'*ones) - ones
	control := x - 0x20*ones
	return (x | quote | slash | control) & (0x80 * ones)
}

// str checks the string whose opening quote is b[i]. Escaped tells whether it
// has escape sequences.
func (s *jsonScanner) str(i int) (end int, escaped bool) {
	b := s.b
	j := i + 1
	for {
		for j+8 <= len(b) {
			if m := jsonSpecial(binary.LittleEndian.Uint64(b[j:])); m != 0 {
				j += bits.TrailingZeros64(m) >> 3
				goto special
			}
			j += 8
		}
		for j < len(b) && jsonPlain[b[j]] {
			j++
		}
		if j >= len(b) {
			return s.fail(len(b), jsonMsgUnclosed), false
		}
	special:
		switch c := b[j]; {
		case c == '"':
			return j + 1, escaped
		case c == '\\':
			if j = s.escape(j); j < 0 {
				return j, false
			}
			escaped = true
		case c < 0x20:
			return s.fail(j, jsonMsgControl), false
		default:
			if j = s.nonASCII(j); j < 0 {
				return j, false
			}
		}
	}
}

// nonASCII checks the run of multi-octet characters that begins at b[j]. The
// two common forms are recognised in place; where they do not fit the decision
// is left to utf8.DecodeRune.
func (s *jsonScanner) nonASCII(j int) int {
	b := s.b
	for j < len(b) && b[j] >= utf8.RuneSelf {
		c := b[j]
		if len(b)-j >= 3 && b[j+1]&0xC0 == 0x80 {
			if c >= 0xE1 && c <= 0xEF && c != 0xED && b[j+2]&0xC0 == 0x80 {
				j += 3
				continue
			}
			if c >= 0xC2 && c <= 0xDF {
				j += 2
				continue
			}
		}
		r, n := utf8.DecodeRune(b[j:])
		if r == utf8.RuneError && n <= 1 {
			return s.fail(j, jsonMsgUTF8)
		}
		j += n
	}
	return j
}

// escape checks the escape sequence at b[j], a surrogate pair being one.
func (s *jsonScanner) escape(j int) int {
	b := s.b
	if j+1 >= len(b) {
		return s.fail(len(b), jsonMsgUnclosed)
	}
	switch b[j+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return j + 2
	case 'u':
		r := hex4(b, j+2)
		if r < 0 {
			break
		}
		if r&0xF800 != 0xD800 {
			return j + 6
		}
		if r < 0xDC00 && len(b)-j >= 12 && b[j+6] == '\\' && b[j+7] == 'u' && hex4(b, j+8)&^0x3FF == 0xDC00 {
			return j + 12
		}
		return s.fail(j, jsonMsgSurrogate)
	}
	return s.fail(j, jsonMsgEscape)
}

// hex4 reads the four hexadecimal digits at b[i:], and returns -1 if there are
// not as many.
func hex4(b []byte, i int) rune {
	if len(b)-i < 4 {
		return -1
	}
	var r rune
	for _, c := range b[i : i+4] {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c|0x20-'a' <= 5:
			c = c | 0x20 - 'a' + 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// appendUnescaped appends what raw, the inside of a string already checked,
// stands for, and with fold the representative of all names that equal it
// under folding. What is appended is never longer than raw: every escape
// sequence is longer than the character, and foldRune never yields a character
// with a longer encoding.
func appendUnescaped(dst, raw []byte, fold bool) []byte {
	for i := 0; i < len(raw); {
		c := raw[i]
		var r rune
		switch {
		case c == '\\':
			c = raw[i+1]
			i += 2
			switch c {
			case 'b':
				c = '\b'
			case 'f':
				c = '\f'
			case 'n':
				c = '\n'
			case 'r':
				c = '\r'
			case 't':
				c = '\t'
			}
			r = rune(c)
			if c == 'u' {
				r = hex4(raw, i)
				i += 4
				if r&0xF800 == 0xD800 {
					r = 0x10000 + (r-0xD800)<<10 + (hex4(raw, i+2) - 0xDC00)
					i += 6
				}
			}
		case c < utf8.RuneSelf:
			r = rune(c)
			i++
		default:
			var n int
			r, n = utf8.DecodeRune(raw[i:])
			i += n
		}
		if fold {
			r = foldRune(r)
		}
		dst = utf8.AppendRune(dst, r)
	}
	return dst
}

// foldRune picks one character for all that equal r under Unicode simple
// folding: the least of them, as encoding/json does, except that Latin letters
// become small ones. Names are mostly written so and then need no rewriting.
func foldRune(r rune) rune {
	if r >= utf8.RuneSelf {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				r = next
				break
			}
			r = next
		}
	}
	if 'A' <= r && r <= 'Z' {
		r += 'a' - 'A'
	}
	return r
}

// foldChanges tells whether folding a name could change it.
func foldChanges(name []byte) bool {
	for _, c := range name {
		if c >= utf8.RuneSelf || c-'A' < 26 {
			return true
		}
	}
	return false
}
