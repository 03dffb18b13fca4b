package wire

import (
	"strconv"
)

// This file checks JSON text without building anything from it. The user data
// of a packet is carried as the octets that were received, so the text may be
// read again by another JSON reader than the one that checked it. Whatever two
// readers could understand differently is therefore refused here: duplicate
// member names, lone surrogates, invalid UTF-8, a byte order mark and nesting
// without end, next to everything RFC 8259 itself excludes.
//
// Numbers are checked for their form only: 1e999 and 2^53+1 are JSON numbers
// by RFC 8259, and whoever converts them has to mind their range.

// Limits that hold where ScanLimits names none.
const (
	DefaultJSONDepth   = 128
	DefaultJSONMembers = 1 << 16
	DefaultJSONTotal   = 1 << 20
)

// maxJSONDepth holds whatever ScanLimits says. The scanner recurses once per
// level, and encoding/json nests no deeper, so text behind this limit could
// not be read by it anyway.
const maxJSONDepth = 10000

// maxJSONOctets keeps offsets well within the 31 bits a jsonSpan has for them.
const maxJSONOctets = 1 << 30

// ScanLimits bounds a scan before memory is spent. A nil *ScanLimits, and a
// field that is zero or negative, stand for the default limits.
type ScanLimits struct {
	Depth   int // levels of arrays and objects, the outermost being the first; at most 10000
	Members int // members of one object
	Total   int // values in all, arrays and objects counted as well as what they hold

	// FoldNames refuses two names of one object that differ only in letter
	// case (in the sense of Unicode simple folding), because encoding/json
	// would store both in the same struct field.
	FoldNames bool
	// FoldDepth restricts FoldNames to the outermost FoldDepth levels, so
	// that user data further inside may use names as it likes. Zero: all.
	FoldDepth int
}

// SyntaxError says what is wrong with a JSON text and at which octet. It never
// repeats any of the text.
type SyntaxError struct {
	Offset int
	Msg    string
}

func (e *SyntaxError) Error() string {
	return "json: " + e.Msg + " at octet " + strconv.Itoa(e.Offset)
}

// What a SyntaxError can say.
const (
	jsonMsgOffset    = "scan begins outside of the text"
	jsonMsgLength    = "text too long"
	jsonMsgEnd       = "unexpected end"
	jsonMsgValue     = "value expected"
	jsonMsgBOM       = "byte order mark"
	jsonMsgLiteral   = "unknown literal"
	jsonMsgNumber    = "digit expected in number"
	jsonMsgZero      = "number with leading zero"
	jsonMsgObject    = "object expected"
	jsonMsgName      = "member name expected"
	jsonMsgColon     = "colon expected after member name"
	jsonMsgMember    = "comma or closing brace expected"
	jsonMsgElement   = "comma or closing bracket expected"
	jsonMsgTrailing  = "text after the value"
	jsonMsgUnclosed  = "string not closed"
	jsonMsgControl   = "control character in string"
	jsonMsgEscape    = "invalid escape sequence"
	jsonMsgString    = "string expected"
	jsonMsgSurrogate = "lone surrogate"
	jsonMsgUTF8      = "invalid UTF-8"
	jsonMsgDuplicate = "duplicate member name"
	jsonMsgFolded    = "member name repeated or differing only in letter case"
	jsonMsgDepth     = "nested too deeply"
	jsonMsgMembers   = "too many members in object"
	jsonMsgTotal     = "too many values"
)

// ScanJSON checks the JSON value that begins at b[i], after any white space,
// and returns the index behind it. What follows the value is not looked at.
// On failure end is i.
func ScanJSON(b []byte, i int, lim *ScanLimits) (end int, err error) {
	var s jsonScanner
	depth, ok := s.init(b, i, lim)
	if !ok {
		return i, s.err()
	}
	if end = s.value(skipJSONSpace(b, i), depth); end < 0 {
		return i, s.err()
	}
	return end, nil
}

// ValidJSON checks that b is exactly one JSON value with nothing but white
// space around it.
func ValidJSON(b []byte, lim *ScanLimits) error {
	i, err := ScanJSON(b, 0, lim)
	if err != nil {
		return err
	}
	if i = skipJSONSpace(b, i); i < len(b) {
		return &SyntaxError{i, jsonMsgTrailing}
	}
	return nil
}

// ScanObject checks the object that begins at b[i], after any white space, and
// calls fn for each of its members in their order. It returns the index behind
// the object; on failure end is i. An error of fn ends the scan and is
// returned as it is.
//
// The name is unescaped and lies in b unless it had escape sequences; the value
// consists of the octets as they are in b, without white space around them.
// Both stay valid after fn has returned, as long as b is not changed.
//
// fn sees a member as soon as that member is checked. The rest of the object
// may still turn out to be wrong, a duplicate of this very name included, so
// nothing must be done with what fn was given before ScanObject has succeeded.
func ScanObject(b []byte, i int, lim *ScanLimits, fn func(name, value []byte) error) (end int, err error) {
	var s jsonScanner
	depth, ok := s.init(b, i, lim)
	if !ok {
		return i, s.err()
	}
	// This is the loop of jsonScanner.object once more. Giving parts of s.b
	// to a function that is not known would move the scanner to the heap.
	at := skipJSONSpace(b, i)
	if s.open(at, '{', jsonMsgObject) < 0 {
		return i, s.err()
	}
	s.left-- // the object itself; depth and left are at least one here
	var f jsonFrame
	f.init(&s, depth)
	at = skipJSONSpace(b, at+1)
	if at < len(b) && b[at] == '}' {
		return at + 1, nil
	}
	for {
		nameEnd, escaped, value := s.member(&f, at)
		if value < 0 {
			return i, s.err()
		}
		valueEnd := s.value(value, depth-1)
		if valueEnd < 0 {
			return i, s.err()
		}
		if fn != nil {
			// The capacities end with the contents, lest an append
			// by fn change the text behind.
			name := b[at+1 : nameEnd-1 : nameEnd-1]
			if escaped {
				name = appendUnescaped(make([]byte, 0, len(name)), name, false)
			}
			if err := fn(name, b[value:valueEnd:valueEnd]); err != nil {
				return i, err
			}
		}
		if at = s.next(valueEnd, '}', jsonMsgMember); at < 0 {
			return i, s.err()
		}
		if b[at-1] == '}' {
			return at, nil
		}
		at = skipJSONSpace(b, at)
	}
}
