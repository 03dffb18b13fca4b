package codec

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"github.com/owtp-go/owtp/internal/wire"
)

// Between Value and JSON. No digit of a number is lost: what no kind of Value
// holds is refused.

// appendJSON appends a Value that has been checked as JSON.
func appendJSON(out, b []byte) ([]byte, error) {
	n, err := read(b)
	if err != nil {
		return nil, err
	}
	switch n.tag {
	case tagNull:
		return append(out, "null"...), nil
	case tagBool:
		return strconv.AppendBool(out, n.num == 1), nil
	case tagInteger:
		return strconv.AppendInt(out, n.integer(), 10), nil
	case tagUnsigned:
		return strconv.AppendUint(out, n.num, 10), nil
	case tagNumber:
		return appendNumber(out, n.float()), nil
	case tagText:
		return wire.AppendJSONString(out, string(n.oct))
	case tagOctets:
		return append(base64.StdEncoding.AppendEncode(append(out, '"'), n.oct), '"'), nil
	case tagList:
		return appendJSONList(out, n.oct)
	case tagMap:
		return appendJSONMap(out, n.oct)
	}
	return nil, errorf("a message inside of another value")
}

func appendJSONList(out, b []byte) ([]byte, error) {
	out = append(out, '[')
	for first := true; len(b) > 0; first = false {
		v, rest, err := element(b)
		if err != nil {
			return nil, err
		}
		if !first {
			out = append(out, ',')
		}
		if out, err = appendJSON(out, v); err != nil {
			return nil, err
		}
		b = rest
	}
	return append(out, ']'), nil
}

func appendJSONMap(out, b []byte) ([]byte, error) {
	out = append(out, '{')
	for first := true; len(b) > 0; first = false {
		name, v, rest, err := member(b)
		if err != nil {
			return nil, err
		}
		if !first {
			out = append(out, ',')
		}
		if out, err = wire.AppendJSONString(out, string(name)); err != nil {
			return nil, err
		}
		if out, err = appendJSON(append(out, ':'), v); err != nil {
			return nil, err
		}
		b = rest
	}
	return append(out, '}'), nil
}

// appendNumber writes the shortest text that reads back as f, as encoding/json
// does. But what is an integer of 64 bits has all its digits: the shortest text
// of 2^60 is another integer, and who reads it by path would see that one.
func appendNumber(out []byte, f float64) []byte {
	if f == math.Trunc(f) && f >= -1<<63 && f < 1<<64 {
		return strconv.AppendFloat(out, f, 'f', 0, 64)
	}
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		return strconv.AppendFloat(out, f, 'e', -1, 64)
	}
	return strconv.AppendFloat(out, f, 'f', -1, 64)
}

// json appends JSON text that has been checked as a Value.
func (e *encoder) json(text []byte, i, depth int) (end int, err error) {
	if e.left--; e.left < 0 {
		return 0, errorf("more than %d values", wire.MaxValues)
	}
	i = skipSpace(text, i)
	switch text[i] {
	case '{':
		return e.jsonContainer(text, i+1, depth, tagMap)
	case '[':
		return e.jsonContainer(text, i+1, depth, tagList)
	case '"':
		end = endOfString(text, i)
		s, err := wire.UnquoteJSON(text[i:end])
		e.octets(tagText, s)
		return end, err
	case 't':
		e.b = append(e.b, tagBool, 1)
		return i + 4, nil
	case 'f':
		e.b = append(e.b, tagBool, 0)
		return i + 5, nil
	case 'n':
		e.b = append(e.b, tagNull, 0)
		return i + 4, nil
	}
	end = i
	for end < len(text) && strings.IndexByte("+-.0123456789Ee", text[end]) >= 0 {
		end++
	}
	return end, e.literal(string(text[i:end]))
}

func (e *encoder) jsonContainer(text []byte, i, depth int, tag byte) (end int, err error) {
	if depth == 0 {
		return 0, errorf("nested deeper than %d", maxDepth)
	}
	outer := e.open(tag)
	for n := 0; ; n++ {
		i = skipSpace(text, i)
		if c := text[i]; c == '}' || c == ']' {
			e.close(outer)
			return i + 1, nil
		} else if c == ',' {
			i = skipSpace(text, i+1)
		}
		inner := e.open(tagFirst)
		value := inner
		var name []byte // of a member; an element has its index
		if tag == tagMap {
			end := endOfString(text, i)
			if name, err = wire.UnquoteJSON(text[i:end]); err != nil {
				return 0, err
			}
			e.octets(tagFirst, name)
			value = e.open(tagSecond)
			i = skipSpace(text, end) + 1 // the colon
		}
		if i, err = e.json(text, i, depth-1); err != nil {
			if tag == tagList {
				name = strconv.AppendInt(nil, int64(n), 10)
			}
			return 0, within(string(name), err)
		}
		if value != inner {
			e.close(value)
		}
		e.close(inner)
	}
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// endOfString returns the index behind the string that begins at text[i].
func endOfString(text []byte, i int) int {
	for i++; text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// literal appends a JSON number as the kind that holds it.
func (e *encoder) literal(text string) error {
	v, err := exactNumber(text)
	if err != nil {
		return err
	}
	switch v := v.(type) {
	case int64:
		e.integer(v)
	case uint64:
		e.unsigned(v)
	case float64:
		return e.number(v)
	}
	return nil
}

// exactNumber reads a JSON number as int64, uint64 or float64, whichever is the
// first whose own text is the same number.
func exactNumber(text string) (any, error) {
	if v, err := strconv.ParseInt(text, 10, 64); err == nil && text != "-0" {
		return v, nil
	}
	if v, err := strconv.ParseUint(text, 10, 64); err == nil {
		return v, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !sameNumber(text, strconv.FormatFloat(f, 'e', -1, 64)) {
		return nil, errorf("no number of 64 bits is exactly %.40s; send it as text", text)
	}
	return f, nil
}

// sameNumber compares two decimal numbers.
func sameNumber(a, b string) bool {
	digitsA, expA, okA := decimal(a)
	digitsB, expB, okB := decimal(b)
	return okA && okB && digitsA == digitsB && (expA == expB || digitsA == "")
}

// decimal returns the digits of a number without zeros at either end, and the
// exponent of ten that they are multiplied by.
func decimal(text string) (digits string, exp int64, ok bool) {
	text = strings.TrimPrefix(text, "-")
	mantissa, exponent, _ := strings.Cut(strings.ToLower(text), "e")
	if exponent != "" {
		var err error
		if exp, err = strconv.ParseInt(exponent, 10, 64); err != nil || exp > 1<<40 || exp < -1<<40 {
			exp, ok = 0, strings.Trim(mantissa, "0.") == "" // nothing, however often
			return "", 0, ok
		}
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits = strings.TrimLeft(whole+fraction, "0")
	exp -= int64(len(fraction))
	short := strings.TrimRight(digits, "0")
	return short, exp + int64(len(digits)-len(short)), true
}

// anyOfJSON decodes JSON that has been checked into maps, slices, strings, bool,
// nil, and numbers of 64 bits, for formats that tell their kinds apart.
func anyOfJSON(text []byte) (any, error) {
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	return exactNumbers(v)
}

func exactNumbers(v any) (any, error) {
	var err error
	switch v := v.(type) {
	case json.Number:
		return exactNumber(v.String())
	case map[string]any:
		for name, inner := range v {
			if v[name], err = exactNumbers(inner); err != nil {
				return nil, within(name, err)
			}
		}
	case []any:
		for i, inner := range v {
			if v[i], err = exactNumbers(inner); err != nil {
				return nil, within(strconv.Itoa(i), err)
			}
		}
	}
	return v, nil
}
