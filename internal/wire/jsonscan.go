package wire

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math"
	"math/bits"
	"strconv"
	"unicode"
	"unicode/utf8"
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

// jsonScanner is the state of one scan. Its methods return the index behind
// what they have read, or a negative one after noting the failure in errAt and
// errMsg; this keeps results in registers and the scanner on the stack.
type jsonScanner struct {
	b         []byte
	left      int // values still allowed
	members   int // members allowed in one object
	foldFloor int // names are folded where more than so many levels are left
	errAt     int
	errMsg    string

	// Names that had to be rewritten to be compared: unescaped, folded. They
	// are kept here while the object they belong to is open. Those that do
	// not fit into fixed go to over. Its indices are shifted by len(fixed),
	// so one number says where a name is.
	fixed  [512]byte
	nfixed int
	over   []byte

	spare *jsonTable // the last table that was given up, to be used again
}

func (s *jsonScanner) init(b []byte, i int, lim *ScanLimits) (depth int, ok bool) {
	s.b = b
	if i < 0 || i > len(b) {
		s.fail(i, jsonMsgOffset)
		return 0, false
	}
	if len(b) > maxJSONOctets {
		s.fail(i, jsonMsgLength)
		return 0, false
	}
	depth, s.members, s.left = DefaultJSONDepth, DefaultJSONMembers, DefaultJSONTotal
	s.foldFloor = math.MaxInt
	if lim == nil {
		return depth, true
	}
	if lim.Depth > 0 {
		depth = min(lim.Depth, maxJSONDepth)
	}
	if lim.Members > 0 {
		s.members = lim.Members
	}
	if lim.Total > 0 {
		s.left = lim.Total
	}
	if lim.FoldNames {
		s.foldFloor = 0
		if lim.FoldDepth > 0 {
			s.foldFloor = max(0, depth-lim.FoldDepth)
		}
	}
	return depth, true
}

func (s *jsonScanner) fail(at int, msg string) int {
	s.errAt, s.errMsg = at, msg
	return -1
}

func (s *jsonScanner) err() error {
	return &SyntaxError{s.errAt, s.errMsg}
}

// failBadValue finds the words for an octet that begins no value.
func (s *jsonScanner) failBadValue(i int, msg string) int {
	if i >= len(s.b) {
		return s.fail(len(s.b), jsonMsgEnd)
	}
	if bytes.HasPrefix(s.b[i:], []byte("\ufeff")) {
		return s.fail(i, jsonMsgBOM)
	}
	return s.fail(i, msg)
}

// open checks that b[i] is the octet c.
func (s *jsonScanner) open(i int, c byte, msg string) int {
	if i < len(s.b) && s.b[i] == c {
		return i + 1
	}
	return s.failBadValue(i, msg)
}

// next reads what follows a member or an element: a comma or the octet closer.
func (s *jsonScanner) next(i int, closer byte, msg string) int {
	b := s.b
	if i < len(b) && b[i] <= ' ' {
		i = skipJSONSpace(b, i)
	}
	if i >= len(b) {
		return s.fail(len(b), jsonMsgEnd)
	}
	if c := b[i]; c != ',' && c != closer {
		return s.fail(i, msg)
	}
	return i + 1
}

func skipJSONSpace(b []byte, i int) int {
	for i < len(b) {
		switch b[i] {
		case ' ', '\t', '\n', '\r':
			i++
		default:
			return i
		}
	}
	return i
}

// value checks the value whose first octet is b[i].
func (s *jsonScanner) value(i, depth int) int {
	b := s.b
	if i >= len(b) {
		return s.fail(len(b), jsonMsgEnd)
	}
	if s.left--; s.left < 0 {
		return s.fail(i, jsonMsgTotal)
	}
	c := b[i]
	if c == '"' { // the most frequent ones need not go through the switch
		end, _ := s.str(i)
		return end
	}
	switch c {
	case '{':
		return s.object(i, depth)
	case '[':
		return s.array(i, depth)
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return s.number(i)
	case 't':
		if len(b)-i >= 4 && string(b[i:i+4]) == "true" {
			return i + 4
		}
		return s.fail(i, jsonMsgLiteral)
	case 'f':
		if len(b)-i >= 5 && string(b[i:i+5]) == "false" {
			return i + 5
		}
		return s.fail(i, jsonMsgLiteral)
	case 'n':
		if len(b)-i >= 4 && string(b[i:i+4]) == "null" {
			return i + 4
		}
		return s.fail(i, jsonMsgLiteral)
	}
	return s.failBadValue(i, jsonMsgValue)
}

func (s *jsonScanner) array(i, depth int) int {
	b := s.b
	if depth <= 0 {
		return s.fail(i, jsonMsgDepth)
	}
	i = skipJSONSpace(b, i+1)
	if i < len(b) && b[i] == ']' {
		return i + 1
	}
	for {
		if i = s.value(i, depth-1); i < 0 {
			return i
		}
		if i < len(b) && b[i] == ',' {
			i++
		} else if i = s.next(i, ']', jsonMsgElement); i < 0 || b[i-1] == ']' {
			return i
		}
		if i < len(b) && b[i] <= ' ' {
			i = skipJSONSpace(b, i)
		}
	}
}

func (s *jsonScanner) object(i, depth int) int {
	b := s.b
	if depth <= 0 {
		return s.fail(i, jsonMsgDepth)
	}
	i = skipJSONSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		return i + 1
	}
	var f jsonFrame
	f.init(s, depth)
	for {
		_, _, v := s.member(&f, i)
		if v < 0 {
			return v
		}
		if i = s.value(v, depth-1); i < 0 {
			return i
		}
		if i < len(b) && b[i] == ',' {
			i++
		} else if i = s.next(i, '}', jsonMsgMember); i < 0 {
			return i
		} else if b[i-1] == '}' {
			f.leave(s)
			return i
		}
		if i < len(b) && b[i] <= ' ' {
			i = skipJSONSpace(b, i)
		}
	}
}

// member reads the name at b[i] and the colon. The name ends before nameEnd and
// the value begins at value, which is negative on failure.
func (s *jsonScanner) member(f *jsonFrame, i int) (nameEnd int, escaped bool, value int) {
	b := s.b
	if i >= len(b) {
		return 0, false, s.fail(len(b), jsonMsgEnd)
	}
	if b[i] != '"' {
		return 0, false, s.fail(i, jsonMsgName)
	}
	if f.n >= s.members {
		return 0, false, s.fail(i, jsonMsgMembers)
	}
	j, escaped := s.str(i)
	if j < 0 {
		return 0, false, j
	}
	sp := jsonSpan{uint32(i + 1), uint32(j - i - 2)}
	if escaped || f.fold && foldChanges(b[i+1:j-1]) {
		sp = s.rewrite(b[i+1:j-1], f.fold)
	}
	if !f.add(s, sp) {
		if f.fold {
			return 0, false, s.fail(i, jsonMsgFolded)
		}
		return 0, false, s.fail(i, jsonMsgDuplicate)
	}
	nameEnd = j
	if j < len(b) && b[j] <= ' ' {
		j = skipJSONSpace(b, j)
	}
	if j >= len(b) {
		return 0, false, s.fail(len(b), jsonMsgEnd)
	}
	if b[j] != ':' {
		return 0, false, s.fail(j, jsonMsgColon)
	}
	if j++; j < len(b) && b[j] <= ' ' {
		j = skipJSONSpace(b, j)
	}
	return nameEnd, escaped, j
}

// number checks the form: -? (0 | [1-9][0-9]*) (.[0-9]+)? ([eE][+-]?[0-9]+)?
func (s *jsonScanner) number(i int) int {
	b := s.b
	if b[i] == '-' {
		i++
	}
	switch {
	case i >= len(b) || b[i]-'0' > 9:
		return s.fail(i, jsonMsgNumber)
	case b[i] == '0':
		i++
		// No value could follow here anyway, but a caller of ScanJSON who
		// does not look at what is behind should not get "0" from "01".
		if i < len(b) && b[i]-'0' <= 9 {
			return s.fail(i, jsonMsgZero)
		}
	default:
		for i < len(b) && b[i]-'0' <= 9 {
			i++
		}
	}
	if i < len(b) && b[i] == '.' {
		i++
		if i >= len(b) || b[i]-'0' > 9 {
			return s.fail(i, jsonMsgNumber)
		}
		for i < len(b) && b[i]-'0' <= 9 {
			i++
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if i >= len(b) || b[i]-'0' > 9 {
			return s.fail(i, jsonMsgNumber)
		}
		for i < len(b) && b[i]-'0' <= 9 {
			i++
		}
	}
	return i
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

// jsonSpan says where the n octets of a name are: in b, or among the rewritten
// names of the scanner if the top bit of from is set.
type jsonSpan struct{ from, n uint32 }

const jsonRewritten = 1 << 31

func (s *jsonScanner) rewrite(raw []byte, fold bool) jsonSpan {
	if len(raw) <= len(s.fixed)-s.nfixed {
		from := s.nfixed
		n := len(appendUnescaped(s.fixed[from:from], raw, fold))
		s.nfixed += n
		return jsonSpan{uint32(from) | jsonRewritten, uint32(n)}
	}
	from := len(s.over)
	s.over = appendUnescaped(s.over, raw, fold)
	return jsonSpan{uint32(len(s.fixed)+from) | jsonRewritten, uint32(len(s.over) - from)}
}

func (s *jsonScanner) text(sp jsonSpan) []byte {
	if sp.from&jsonRewritten == 0 {
		return s.b[sp.from : sp.from+sp.n]
	}
	from, n := int(sp.from&^jsonRewritten), int(sp.n)
	if from < len(s.fixed) { // a rewritten name is never empty
		return s.fixed[from : from+n]
	}
	from -= len(s.fixed)
	return s.over[from : from+n]
}

// jsonFew is the number of names that are compared one by one.
const jsonFew = 16

// jsonFrame holds the names of an object that is being read.
type jsonFrame struct {
	n      int
	fold   bool
	nfixed int // state of the scanner's rewritten names before this object
	nover  int
	few    [jsonFew]jsonSpan
	table  *jsonTable // all names, once there are more than few
}

func (f *jsonFrame) init(s *jsonScanner, depth int) {
	f.fold = depth > s.foldFloor
	f.nfixed, f.nover = s.nfixed, len(s.over)
}

// leave forgets the names.
func (f *jsonFrame) leave(s *jsonScanner) {
	s.nfixed, s.over = f.nfixed, s.over[:f.nover]
	if f.table != nil {
		s.spare = f.table
	}
}

// add notes a name and reports whether it is new.
func (f *jsonFrame) add(s *jsonScanner, sp jsonSpan) bool {
	if f.table == nil {
		name := s.text(sp)
		for _, old := range f.few[:f.n] {
			if old.n == sp.n && bytes.Equal(s.text(old), name) {
				return false
			}
		}
		if f.n < len(f.few) {
			f.few[f.n] = sp
			f.n++
			return true
		}
		if f.table = s.spare; f.table == nil {
			f.table = new(jsonTable)
		}
		s.spare = nil
		f.table.reset()
		for _, old := range f.few {
			f.table.add(s, old)
		}
	}
	f.n++
	return f.table.add(s, sp)
}

// jsonTable is an open-addressed hash table of names. Its seed is drawn anew
// for every object, so that nobody can prepare names that collide.
type jsonTable struct {
	seed  maphash.Seed
	names []jsonSpan
	slots []uint64 // 0, or 32 bits of the hash above the index in names plus one
}

func (t *jsonTable) reset() {
	t.seed = maphash.MakeSeed()
	t.names = t.names[:0]
	// A large table that is used again for a small object must not be
	// cleared beyond what that object needs.
	t.resize(4 * jsonFew)
}

func (t *jsonTable) resize(n int) {
	old := t.slots
	if n <= cap(old) && len(t.names) == 0 {
		t.slots = old[:n]
		clear(t.slots)
		return
	}
	t.slots = make([]uint64, n)
	for _, slot := range old {
		if slot != 0 {
			t.put(slot)
		}
	}
}

func (t *jsonTable) put(slot uint64) {
	mask := len(t.slots) - 1
	i := int(slot>>32) & mask
	for t.slots[i] != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = slot
}

func (t *jsonTable) add(s *jsonScanner, sp jsonSpan) bool {
	name := s.text(sp)
	hash := maphash.Bytes(t.seed, name) >> 32
	mask := len(t.slots) - 1
	for i := int(hash) & mask; t.slots[i] != 0; i = (i + 1) & mask {
		slot := t.slots[i]
		if slot>>32 == hash && bytes.Equal(s.text(t.names[uint32(slot)-1]), name) {
			return false
		}
	}
	t.names = append(t.names, sp)
	if 2*len(t.names) > len(t.slots) {
		t.resize(2 * len(t.slots))
	}
	t.put(hash<<32 | uint64(len(t.names)))
	return true
}
