package wire

import (
	"bytes"
	"math"
)

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
