package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// wide lets the grammar decide: what encoding/json reads never meets a limit.
var wide = &ScanLimits{Depth: maxJSONDepth, Members: 1 << 30, Total: 1 << 30}

var jsonAccepted = []string{
	`null`, `true`, `false`, `0`, `-0`, `1`, `-12`, `1.5`, `0.0`, `1e5`, `1E+5`, `0e-1`, `1e999`, `123456789012345678901234567890`,
	`""`, `"a"`, `"abcdefgh"`, `"abcdefghi"`, `"/"`, "\"\x7f\"",
	`"\"\\\/\b\f\n\r\t"`, `"\u0000"`, `"\uabCD"`, `"\ud83d\ude00"`, `"\uD800\uDC00"`, `"\udbff\udfff"`, `"\\ud800"`, `"\uffff"`,
	`"é"`, `"漢字漢字漢字"`, `"😀"`, "\"\ufffd\"", "\"\ufeff\"", "\"\u2028\"", "\"\uffff\"", "\"\ud7ff\ue000\"", "\"\U0010ffff\"",
	`[]`, `[ ]`, `{}`, `{ }`, " \t\r\n[1 , 2]\n", `[[],{},[[]]]`,
	`{"a":1}`, ` { "a" : 1 , "b" : [ { } ] } `, `{"":0}`, `{"a":1,"A":2}`, `{"a":{"a":{"a":1}}}`, `[{"a":1},{"a":1}]`,
	`{"\u0061":1,"b":2}`, `{"a\u0000":1,"a":2}`, `{"é":1,"e\u0301":2}`,
	`{"\\u0061":1,"a":2}`,
}

var jsonRefused = []struct {
	in  string
	at  int
	msg string
}{
	{``, 0, jsonMsgEnd}, {` `, 1, jsonMsgEnd}, {`[`, 1, jsonMsgEnd}, {`[1`, 2, jsonMsgEnd}, {`{`, 1, jsonMsgEnd},
	{`{"a"`, 4, jsonMsgEnd}, {`{"a":`, 5, jsonMsgEnd}, {`{"a":1`, 6, jsonMsgEnd}, {`{"a":1,`, 7, jsonMsgEnd}, {`[1,`, 3, jsonMsgEnd},
	{"\ufeff{}", 0, jsonMsgBOM}, {" \ufeff{}", 1, jsonMsgBOM}, {"[\ufeff1]", 1, jsonMsgBOM}, {"\xff\xfe{\x00", 0, jsonMsgValue},
	{`x`, 0, jsonMsgValue}, {`'a'`, 0, jsonMsgValue}, {`]`, 0, jsonMsgValue}, {`[1,]`, 3, jsonMsgValue}, {`[,1]`, 1, jsonMsgValue},
	{`{"a":}`, 5, jsonMsgValue}, {`+1`, 0, jsonMsgValue}, {`.5`, 0, jsonMsgValue}, {`NaN`, 0, jsonMsgValue}, {`Infinity`, 0, jsonMsgValue},
	{"\v1", 0, jsonMsgValue}, {"\u00a01", 0, jsonMsgValue}, {"\x001", 0, jsonMsgValue}, {`//x`, 0, jsonMsgValue}, {"[/**/1]", 1, jsonMsgValue},
	{`tru`, 0, jsonMsgLiteral}, {`True`, 0, jsonMsgValue}, {`nul`, 0, jsonMsgLiteral}, {`falsE`, 0, jsonMsgLiteral}, {`fals`, 0, jsonMsgLiteral},
	{`-`, 1, jsonMsgNumber}, {`-a`, 1, jsonMsgNumber}, {`1.`, 2, jsonMsgNumber}, {`1.e5`, 2, jsonMsgNumber}, {`1e`, 2, jsonMsgNumber},
	{`1e+`, 3, jsonMsgNumber}, {`-.5`, 1, jsonMsgNumber}, {`[1.]`, 3, jsonMsgNumber}, {`--1`, 1, jsonMsgNumber},
	{`01`, 1, jsonMsgZero}, {`-00`, 2, jsonMsgZero}, {`0x1`, 1, jsonMsgTrailing}, {`1e5.5`, 3, jsonMsgTrailing}, {`1_0`, 1, jsonMsgTrailing},
	{`{}{}`, 2, jsonMsgTrailing}, {`1 2`, 2, jsonMsgTrailing}, {`nullx`, 4, jsonMsgTrailing}, {"{}\x00", 2, jsonMsgTrailing}, {`[]]`, 2, jsonMsgTrailing}, {"{}\ufeff", 2, jsonMsgTrailing},
	{`{a:1}`, 1, jsonMsgName}, {`{1:1}`, 1, jsonMsgName}, {`{,}`, 1, jsonMsgName}, {`{"a":1,}`, 7, jsonMsgName}, {`{null:1}`, 1, jsonMsgName},
	{`{"a"}`, 4, jsonMsgColon}, {`{"a" 1}`, 5, jsonMsgColon}, {`{"a"=1}`, 4, jsonMsgColon}, {`{"a"::1}`, 5, jsonMsgValue},
	{`{"a":1 "b":2}`, 7, jsonMsgMember}, {`{"a":1]`, 6, jsonMsgMember}, {`{"a":1;}`, 6, jsonMsgMember},
	{`[1 2]`, 3, jsonMsgElement}, {`[1}`, 2, jsonMsgElement}, {`["a":1]`, 4, jsonMsgElement},
	{`"`, 1, jsonMsgUnclosed}, {`"abc`, 4, jsonMsgUnclosed}, {`"abcdefgh`, 9, jsonMsgUnclosed}, {`"\"`, 3, jsonMsgUnclosed}, {`"\`, 2, jsonMsgUnclosed}, {`{"a`, 3, jsonMsgUnclosed},
	{"\"\n\"", 1, jsonMsgControl}, {"\"\x00\"", 1, jsonMsgControl}, {"\"abcdefgh\x1f\"", 9, jsonMsgControl}, {"\"a\tbcdefgh\"", 2, jsonMsgControl}, {"{\"\t\":1}", 2, jsonMsgControl},
	{`"\x41"`, 1, jsonMsgEscape}, {`"\'"`, 1, jsonMsgEscape}, {`"\0"`, 1, jsonMsgEscape}, {`"\u12"`, 1, jsonMsgEscape}, {`"\u12g4"`, 1, jsonMsgEscape}, {`"\U0041"`, 1, jsonMsgEscape}, {`"\u`, 1, jsonMsgEscape}, {`"\u+123"`, 1, jsonMsgEscape}, {"\"\\\xff\"", 1, jsonMsgEscape},
	{`"\ud800"`, 1, jsonMsgSurrogate}, {`"\udc00"`, 1, jsonMsgSurrogate}, {`"\ud800\ud800"`, 1, jsonMsgSurrogate}, {`"\ud800\u0041"`, 1, jsonMsgSurrogate}, {`"\ud800x\udc00"`, 1, jsonMsgSurrogate},
	{`"\udc00\ud800"`, 1, jsonMsgSurrogate}, {`"\ud83d\ude00\ude00"`, 13, jsonMsgSurrogate}, {`"\ud800\n"`, 1, jsonMsgSurrogate}, {`{"\ud800":1}`, 2, jsonMsgSurrogate}, {`"\ud800\udc0"`, 1, jsonMsgSurrogate}, {`"\ud800\\udc00"`, 1, jsonMsgSurrogate},
	{"\"\x80\"", 1, jsonMsgUTF8}, {"\"\xff\"", 1, jsonMsgUTF8}, {"\"\xc0\x80\"", 1, jsonMsgUTF8}, {"\"\xc1\xbf\"", 1, jsonMsgUTF8}, {"\"\xe0\x80\xaf\"", 1, jsonMsgUTF8}, {"\"\xe0\x9f\xbf\"", 1, jsonMsgUTF8},
	{"\"\xf0\x80\x80\xaf\"", 1, jsonMsgUTF8}, {"\"\xed\xa0\x80\"", 1, jsonMsgUTF8}, {"\"\xed\xbf\xbf\"", 1, jsonMsgUTF8}, {"\"\xf4\x90\x80\x80\"", 1, jsonMsgUTF8}, {"\"\xf5\x80\x80\x80\"", 1, jsonMsgUTF8},
	{"\"\xc3\"", 1, jsonMsgUTF8}, {"\"\xe6\xbc\"", 1, jsonMsgUTF8}, {"\"\xf0\x9f\x98\"", 1, jsonMsgUTF8}, {"\"\xe6\xbc", 1, jsonMsgUTF8}, {"\"\xc3", 1, jsonMsgUTF8}, {"\"abcdefgh漢\x80\"", 12, jsonMsgUTF8}, {"{\"\xff\":1}", 2, jsonMsgUTF8},
	{`{"a":1,"a":1}`, 7, jsonMsgDuplicate}, {`{"a":1,"\u0061":2}`, 7, jsonMsgDuplicate}, {`{"\u0061":1,"a":2}`, 12, jsonMsgDuplicate}, {`{"\u0061":1,"\u0061":2}`, 12, jsonMsgDuplicate}, {`{"":1,"":2}`, 6, jsonMsgDuplicate},
	{`{"x":{"a":1,"a":1}}`, 12, jsonMsgDuplicate}, {`[[{"a":{},"b":1,"a":1}]]`, 16, jsonMsgDuplicate}, {`{"/":1,"\/":2}`, 7, jsonMsgDuplicate}, {`{"😀":1,"\ud83d\ude00":2}`, 10, jsonMsgDuplicate}, {`{"\n":1,"\u000A":2}`, 8, jsonMsgDuplicate},
	{`{"a":{"b":1},"a":1}`, 13, jsonMsgDuplicate}, {`{"d":{"\u0064":{"d":1}},"\u0064":2}`, 24, jsonMsgDuplicate},
}

func wantSyntax(t *testing.T, in string, err error, at int, msg string) {
	t.Helper()
	var se *SyntaxError
	if !errors.As(err, &se) {
		t.Errorf("%.80q: error %v, want %q at %d", in, err, msg, at)
	} else if se.Offset != at || se.Msg != msg {
		t.Errorf("%.80q: %v, want %q at %d", in, err, msg, at)
	}
}

func TestValidJSONAccepts(t *testing.T) {
	for _, in := range jsonAccepted {
		for _, lim := range []*ScanLimits{nil, {}, wide} {
			if err := ValidJSON([]byte(in), lim); err != nil {
				t.Errorf("%q: %v", in, err)
			}
		}
		// Every offset of the text within the eight octets read at once.
		for n := range 20 {
			pad := strings.Repeat("x", n)
			if err := ValidJSON([]byte(`["`+pad+`",`+in+`,"`+pad+`"]`), nil); err != nil {
				t.Errorf("%q after %d: %v", in, n, err)
			}
		}
	}
}

func TestValidJSONRefuses(t *testing.T) {
	for _, c := range jsonRefused {
		wantSyntax(t, c.in, ValidJSON([]byte(c.in), nil), c.at, c.msg)
		if len(c.in) > 1 && c.in[0] == '"' {
			for n := range 20 { // the same string with its flaw further behind
				in := `"` + strings.Repeat("x", n) + c.in[1:]
				wantSyntax(t, in, ValidJSON([]byte(in), nil), c.at+n, c.msg)
			}
		}
	}
}

func TestScanJSONEnd(t *testing.T) {
	for _, c := range []struct {
		in     string
		i, end int
	}{
		{`1 2`, 0, 1}, {`1 2`, 1, 3}, {` "a",`, 0, 4}, {`x[1]]`, 1, 4}, {`{} `, 0, 2}, {`truefalse`, 0, 4}, {`-1.5e3,`, 0, 6},
	} {
		end, err := ScanJSON([]byte(c.in), c.i, nil)
		if end != c.end || err != nil {
			t.Errorf("%q from %d: %d, %v, want %d", c.in, c.i, end, err, c.end)
		}
	}
	for _, i := range []int{-1, 3, 1 << 30} {
		_, err := ScanJSON([]byte(`12`), i, nil)
		wantSyntax(t, `12`, err, i, jsonMsgOffset)
		_, err = ScanObject([]byte(`{}`), i, nil, nil)
		wantSyntax(t, `{}`, err, i, jsonMsgOffset)
	}
	if end, err := ScanJSON([]byte(`  x`), 1, nil); end != 1 || err == nil {
		t.Errorf("end %d, %v after failure", end, err)
	}
	if got := (&SyntaxError{7, jsonMsgValue}).Error(); got != "json: value expected at octet 7" {
		t.Error(got)
	}
}

func nested(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

func TestScanLimits(t *testing.T) {
	members := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"m%d":0`, i)
		}
		return "{" + strings.TrimPrefix(b.String(), ",") + "}"
	}
	deepObject := strings.Repeat(`{"a":`, 5) + `1` + strings.Repeat(`}`, 5)
	for _, c := range []struct {
		in  string
		lim *ScanLimits
		msg string
	}{
		{nested(128), nil, ""}, {nested(129), nil, jsonMsgDepth},
		{nested(maxJSONDepth), wide, ""}, {nested(maxJSONDepth + 1), wide, jsonMsgDepth},
		{strings.Repeat("[", 1<<20), &ScanLimits{Depth: 1 << 30}, jsonMsgDepth},
		{strings.Repeat(`{"a":`, 1<<20), &ScanLimits{Depth: 1 << 30}, jsonMsgDepth},
		{`1`, &ScanLimits{Depth: 1}, ""}, {`[1]`, &ScanLimits{Depth: 1}, ""}, {`[[]]`, &ScanLimits{Depth: 1}, jsonMsgDepth}, {`[{}]`, &ScanLimits{Depth: 1}, jsonMsgDepth},
		{deepObject, &ScanLimits{Depth: 5}, ""}, {deepObject, &ScanLimits{Depth: 4}, jsonMsgDepth},
		{members(3), &ScanLimits{Members: 3}, ""}, {members(4), &ScanLimits{Members: 3}, jsonMsgMembers}, {members(40), &ScanLimits{Members: 40}, ""}, {members(41), &ScanLimits{Members: 40}, jsonMsgMembers},
		{members(1 << 16), nil, ""}, {members(1<<16 + 1), nil, jsonMsgMembers},
		{`[1,2,3]`, &ScanLimits{Total: 4}, ""}, {`[1,2,3]`, &ScanLimits{Total: 3}, jsonMsgTotal}, {`{"a":{},"b":[]}`, &ScanLimits{Total: 3}, ""}, {`{"a":{},"b":[]}`, &ScanLimits{Total: 2}, jsonMsgTotal},
	} {
		err := ValidJSON([]byte(c.in), c.lim)
		var oerr error
		if c.in[0] == '{' {
			_, oerr = ScanObject([]byte(c.in), 0, c.lim, nil)
			if fmt.Sprint(oerr) != fmt.Sprint(err) {
				t.Errorf("%.40q: ScanObject %v, ScanJSON %v", c.in, oerr, err)
			}
		}
		var se *SyntaxError
		if c.msg == "" && err != nil || c.msg != "" && (!errors.As(err, &se) || se.Msg != c.msg) {
			t.Errorf("%.40q %+v: %v, want %q", c.in, c.lim, err, c.msg)
		}
	}
}

func TestFoldNames(t *testing.T) {
	for _, c := range []struct {
		in    string
		depth int
		ok    bool
	}{
		{`{"a":1,"b":2}`, 0, true}, {`{"a":1,"A":2}`, 0, false}, {`{"A":1,"a":2}`, 0, false}, {`{"A":1,"A":2}`, 0, false}, {`{"a":1,"\u0041":2}`, 0, false},
		{`{"k":1,"\u212a":2}`, 0, false}, {`{"K":1,"` + "\u212a" + `":2}`, 0, false}, {`{"s":1,"ſ":2}`, 0, false}, {`{"ß":1,"ẞ":2}`, 0, false}, {`{"ß":1,"ss":2}`, 0, true},
		{`{"Σ":1,"ς":2}`, 0, false}, {`{"σ":1,"ς":2}`, 0, false}, {`{"ǆ":1,"ǅ":2}`, 0, false}, {`{"i":1,"ı":2,"İ":3,"L":4}`, 0, true}, {`{"ᲀ":1,"в":2}`, 0, false},
		{`{"x":{"a":1,"A":2}}`, 0, false}, {`{"x":{"a":1,"A":2}}`, 1, true}, {`{"x":{"a":1,"A":2}}`, 2, false}, {`{"a":1,"A":2}`, 1, false}, {`{"d":[{"a":1,"A":2}]}`, 2, true}, {`{"d":[{"a":1,"a":2}]}`, 2, false},
		{`{"a":1,"A":2}`, 1000, false},
	} {
		lim := &ScanLimits{FoldNames: true, FoldDepth: c.depth}
		err := ValidJSON([]byte(c.in), lim)
		_, oerr := ScanObject([]byte(c.in), 0, lim, nil)
		if (err == nil) != c.ok || (oerr == nil) != c.ok {
			t.Errorf("%s depth %d: %v, %v, want ok=%v", c.in, c.depth, err, oerr, c.ok)
		}
	}
}

// foldRune must agree with strings.EqualFold on every character and must not
// need more room than the character had.
func TestFoldRune(t *testing.T) {
	for r := rune(0); r <= utf8.MaxRune; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		f := foldRune(r)
		if !strings.EqualFold(string(r), string(f)) || foldRune(f) != f || utf8.RuneLen(f) > utf8.RuneLen(r) {
			t.Fatalf("%U folds to %U", r, f)
		}
		if f != r && !foldChanges([]byte(string(r))) {
			t.Fatalf("%U is said not to change", r)
		}
	}
}

// Every pair of octets, at every place of a word, must be judged as one by one.
func TestJSONSpecial(t *testing.T) {
	for a := range 256 {
		if jsonPlain[a] != (a >= 0x20 && a < 0x80 && a != '"' && a != '\\') {
			t.Fatalf("jsonPlain[%#x]", a)
		}
		for b := range 256 {
			for at := range 7 {
				w := []byte("aaaaaaaa")
				w[at], w[at+1] = byte(a), byte(b)
				var x uint64
				for k := 7; k >= 0; k-- {
					x = x<<8 | uint64(w[k])
				}
				want := 8
				for k := 7; k >= 0; k-- {
					if !jsonPlain[w[k]] {
						want = k
					}
				}
				got := 0
				for m := jsonSpecial(x); got < 8 && m>>(8*got)&0x80 == 0; got++ {
				}
				if got != want {
					t.Fatalf("%q: first special %d, want %d", w, got, want)
				}
			}
		}
	}
}

// A duplicate is found wherever it stands, on both sides of the change from
// comparing to hashing, and however the names are written.
func TestDuplicatePlaces(t *testing.T) {
	spell := []func(string) string{
		func(s string) string { return s },
		func(s string) string { return fmt.Sprintf(`\u%04x`, s[0]) + s[1:] },
		func(s string) string { return strings.ToUpper(s) },
	}
	fold := &ScanLimits{FoldNames: true}
	for _, width := range []int{1, 60, 600} { // in fixed, around its end, behind it
		pad := strings.Repeat("x", width)
		for _, n := range []int{2, 3, 15, 16, 17, 18, 33, 40} {
			for dup := range n {
				for k, sp := range spell {
					var b strings.Builder
					b.WriteByte('{')
					for i := range n {
						name := fmt.Sprintf("n%s%d", pad, i)
						if i%3 == 1 {
							name = spell[1](name)
						}
						fmt.Fprintf(&b, `"%s":{"n%s0":0,"\u006e%s1":1},`, name, pad, pad)
					}
					whole := strings.TrimSuffix(b.String(), ",") + "}"
					if err := ValidJSON([]byte(whole), fold); err != nil {
						t.Fatalf("%d names: %v", n, err)
					}
					at := b.Len()
					fmt.Fprintf(&b, `"%s":1}`, sp(fmt.Sprintf("n%s%d", pad, dup)))
					if k < 2 {
						wantSyntax(t, b.String(), ValidJSON([]byte(b.String()), nil), at, jsonMsgDuplicate)
					}
					wantSyntax(t, b.String(), ValidJSON([]byte(b.String()), fold), at, jsonMsgFolded)
				}
			}
		}
	}
}

func TestScanObject(t *testing.T) {
	b := []byte("junk {\"v\" : 1 ,\"\\u0064\":\t{\"a\" : [1, 2]}\n, \"\":\"x\\n\"} tail")
	var got []string
	var names, values [][]byte
	end, err := ScanObject(b, 4, nil, func(name, value []byte) error {
		got = append(got, string(name)+"="+string(value))
		names, values = append(names, name), append(values, value)
		return nil
	})
	want := []string{"v=1", "d={\"a\" : [1, 2]}", `="x\n"`}
	if err != nil || string(b[end:]) != " tail" || !reflect.DeepEqual(got, want) {
		t.Fatalf("%q, rest %q, %v", got, b[end:], err)
	}
	if &names[0][0] != &b[7] || &values[1][0] != &b[bytes.Index(b, []byte(`{"a"`))] {
		t.Error("name or value was copied")
	}
	for i := range names {
		if cap(values[i]) != len(values[i]) || i == 0 && cap(names[i]) != len(names[i]) {
			t.Error("an append would change what lies behind")
		}
		if s := string(names[i]) + "=" + string(values[i]); s != want[i] {
			t.Errorf("%q changed to %q", want[i], s)
		}
	}

	stop := errors.New("stop")
	n := 0
	end, err = ScanObject([]byte(`{"a":1,"b":2,"a":3}`), 0, nil, func(name, value []byte) error {
		n++
		if string(name) == "b" {
			return stop
		}
		return nil
	})
	if err != stop || end != 0 || n != 2 {
		t.Errorf("%d, %v after %d calls", end, err, n)
	}
	for _, c := range jsonRefused {
		if c.msg == jsonMsgTrailing || !strings.HasPrefix(c.in, "{") {
			continue
		}
		_, err := ScanObject([]byte(c.in), 0, nil, func(name, value []byte) error { return nil })
		wantSyntax(t, c.in, err, c.at, c.msg)
	}
	for in, msg := range map[string]string{`[]`: jsonMsgObject, `null`: jsonMsgObject, ``: jsonMsgEnd, "\ufeff{}": jsonMsgBOM, `"{}"`: jsonMsgObject} {
		_, err := ScanObject([]byte(in), 0, nil, nil)
		wantSyntax(t, in, err, 0, msg)
	}
	if end, err := ScanObject([]byte(` {} {}`), 0, nil, nil); end != 3 || err != nil {
		t.Error(end, err)
	}
}

func TestUnquoteJSON(t *testing.T) {
	for in, want := range map[string]string{
		`""`: "", `"abc"`: "abc", `"\"\\\/\b\f\n\r\t"`: "\"\\/\b\f\n\r\t", `"\u0000a"`: "\x00a", `"\u00e9é"`: "éé", `"\ud83d\uDE00x"`: "😀x", `"\uFFFD"`: "\ufffd",
	} {
		got, err := UnquoteJSON([]byte(in))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{``, `"`, `1`, `"a" `, ` "a"`, `"a"b"`, `"\ud800"`, "\"\xff\"", "\"\n\""} {
		if got, err := UnquoteJSON([]byte(in)); err == nil {
			t.Errorf("%s: %q accepted", in, got)
		}
	}
}

func TestAppendJSONString(t *testing.T) {
	for in, want := range map[string]string{
		"": `""`, "a/b<>&'": `"a/b<>&'"`, "\"\\\b\f\n\r\t": `"\"\\\b\f\n\r\t"`, "\x00\x1f\x7f": "\"\\u0000\\u001f\x7f\"", "é漢😀\u2028": "\"é漢😀\u2028\"", "a\nb": `"a\nb"`,
	} {
		got, err := AppendJSONString([]byte("p"), in)
		if err != nil || string(got) != "p"+want {
			t.Errorf("%q: %s, %v", in, got, err)
		}
	}
	got, err := AppendJSONString([]byte("p"), "a\n\xff")
	if string(got) != "p" {
		t.Errorf("%q left behind", got)
	}
	wantSyntax(t, `a\n\xff`, err, 2, jsonMsgUTF8)
}

func TestScanAllocations(t *testing.T) {
	members := make([]string, 16)
	for i := range members {
		members[i] = fmt.Sprintf(`"memberName%d":{"id":%d,"N":[1,2,{"a":"b"}]}`, i, i)
	}
	text := []byte("{" + strings.Join(members, ",") + "}")
	text2 := []byte(`{"\u0061":1,"b\n":"\u00e9"}`)
	str := []byte(`"plain text"`)
	dst := make([]byte, 0, 100)
	for _, lim := range []*ScanLimits{nil, {FoldNames: true}} {
		if n := testing.AllocsPerRun(100, func() {
			if ValidJSON(text, lim) != nil || ValidJSON(text2, lim) != nil {
				t.Error("refused")
			}
			if _, err := ScanObject(text, 0, lim, func(name, value []byte) error { return nil }); err != nil {
				t.Error(err)
			}
			if _, err := UnquoteJSON(str); err != nil {
				t.Error(err)
			}
			if _, err := AppendJSONString(dst, "plain\ntext"); err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("%v allocations with %+v", n, lim)
		}
	}
}

// Time must be linear in the input. The limits of this test are far above what
// a linear scan needs and far below what a quadratic one would take.
func TestScanLinear(t *testing.T) {
	var big, siblings, escaped strings.Builder
	big.WriteString(`{`)
	escaped.WriteString(`{`)
	for i := range 100000 {
		fmt.Fprintf(&big, `"%d":0,`, i)
		fmt.Fprintf(&escaped, `"\u00e9%d":0,`, i)
	}
	big.WriteString(`"x":0}`)
	escaped.WriteString(`"x":0}`)
	// A large table followed by many small objects that need one too.
	siblings.WriteString(`[` + big.String())
	for range 20000 {
		siblings.WriteString(`,{"a":0,"b":0,"c":0,"d":0,"e":0,"f":0,"g":0,"h":0,"i":0,"j":0,"k":0,"l":0,"m":0,"n":0,"o":0,"p":0,"q":0}`)
	}
	siblings.WriteString(`]`)
	long := strings.Repeat("x", 100000)
	var alike strings.Builder
	for i := range 16 {
		fmt.Fprintf(&alike, `,"\u0061%s%02d":0`, long, i)
	}
	lim := &ScanLimits{Depth: maxJSONDepth, Members: 1 << 20, Total: 1 << 30, FoldNames: true}
	for name, in := range map[string]string{
		"big": big.String(), "escaped": escaped.String(), "siblings": siblings.String(), "alike": "{" + alike.String()[1:] + "}",
		"deep": strings.Repeat(`{"a":0,"b":`, maxJSONDepth) + `0` + strings.Repeat(`}`, maxJSONDepth),
	} {
		took := func(text string) time.Duration {
			start := time.Now()
			if err := ValidJSON([]byte(text), lim); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			return time.Since(start)
		}
		// As much text that nothing can be wrong with, at the same moment: what
		// is not linear takes a thousand times as long, however crowded the
		// machine is.
		flat := took("[0" + strings.Repeat(",0", len(in)/2) + "]")
		d := took(in)
		t.Logf("%s: %d octets in %v, as much that is flat in %v", name, len(in), d, flat)
		if d > 100*flat+time.Second {
			t.Errorf("%s: %d octets took %v, and as much that is flat %v", name, len(in), d, flat)
		}
	}
}

// walkNames reads one value with encoding/json and reports whether an object
// in it has a name twice.
func walkNames(t *testing.T, dec *json.Decoder) (dup bool) {
	tok, err := dec.Token()
	if err != nil {
		t.Fatalf("token walk: %v", err)
	}
	switch tok {
	case json.Delim('['):
		for dec.More() {
			dup = walkNames(t, dec) || dup
		}
		dec.Token()
	case json.Delim('{'):
		seen := map[string]bool{}
		for dec.More() {
			key, _ := dec.Token()
			dup = dup || seen[key.(string)]
			seen[key.(string)] = true
			dup = walkNames(t, dec) || dup
		}
		dec.Token()
	}
	return dup
}

// loneSurrogate looks for an escaped surrogate without its pair in text that
// encoding/json accepts.
func loneSurrogate(b []byte) bool {
	s := strings.ReplaceAll(strings.ToLower(string(b)), `\\`, "__")
	for {
		i := strings.Index(s, `\u`)
		if i < 0 {
			return false
		}
		unit := s[i+2 : i+6]
		s = s[i+6:]
		switch {
		case unit >= "dc00" && unit <= "dfff":
			return true
		case unit >= "d800" && unit <= "dbff":
			if len(s) < 6 || s[:2] != `\u` || s[2:6] < "dc00" || s[2:6] > "dfff" {
				return true
			}
			s = s[6:]
		}
	}
}

func seeds(add func([]byte)) {
	for _, in := range jsonAccepted {
		add([]byte(in))
	}
	for _, c := range jsonRefused {
		add([]byte(c.in))
	}
	add([]byte(nested(20)))
	add([]byte(`{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"k":1,"l":1,"m":1,"n":1,"o":1,"p":1,"q":1,"\u0071":1}`))
	add(structured(400))
}

func FuzzScanJSON(f *testing.F) {
	seeds(func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		orig := bytes.Clone(b)
		err := ValidJSON(b, wide)
		if !bytes.Equal(b, orig) {
			t.Fatal("input changed")
		}
		var se *SyntaxError
		if err != nil && (!errors.As(err, &se) || se.Offset < 0 || se.Offset > len(b) || len(err.Error()) > 100) {
			t.Fatalf("error %v", err)
		}
		if json.Valid(b) {
			dec := json.NewDecoder(bytes.NewReader(b))
			dec.UseNumber()
			// Names that differ only in a flaw may look alike to encoding/json,
			// so the flaws are asked for first.
			want := ""
			utf, sur := utf8.Valid(b), loneSurrogate(b)
			dup := walkNames(t, dec)
			if _, err := dec.Token(); err != io.EOF {
				t.Fatalf("token walk ends with %v", err)
			}
			switch {
			case utf && !sur && !dup && err != nil:
				want = "accepted"
			case (!utf || sur || dup) && err == nil:
				want = "refused"
			case err != nil:
				if !(se.Msg == jsonMsgUTF8 && !utf || se.Msg == jsonMsgSurrogate && sur || se.Msg == jsonMsgDuplicate && dup) {
					want = "another reason"
				}
			}
			if want != "" {
				t.Fatalf("%v, want %s (utf8 %v, lone surrogate %v, duplicate %v)", err, want, utf, sur, dup)
			}
		} else if err == nil {
			t.Fatal("accepted, but encoding/json refuses")
		}
		end, serr := ScanJSON(b, 0, wide)
		if err == nil && (serr != nil || len(bytes.Trim(b[end:], " \t\r\n")) != 0) {
			t.Fatalf("ScanJSON ends at %d, %v", end, serr)
		}
		if serr == nil {
			if verr := ValidJSON(b[:end], wide); verr != nil {
				t.Fatalf("ScanJSON accepts what ValidJSON refuses: %v", verr)
			}
		}
		// Small limits may refuse more, never less, and must not panic.
		if small := ValidJSON(b, &ScanLimits{Depth: 2, Members: 3, Total: 5, FoldNames: true}); small == nil && err != nil {
			t.Fatalf("small limits accept what wide ones refuse: %v", err)
		}
	})
}

func FuzzScanObject(f *testing.F) {
	seeds(func(b []byte) { f.Add(b, 0) })
	f.Add([]byte(`xx{"a":{"B":1,"b":2},"A":1}`), 2)
	f.Fuzz(func(t *testing.T, b []byte, i int) {
		type member struct{ name, value string }
		var got []member
		collect := func(name, value []byte) error {
			got = append(got, member{string(name), string(value)})
			return nil
		}
		end, err := ScanObject(b, i, wide, collect)
		send, serr := ScanJSON(b, i, wide)
		if err != nil {
			if serr == nil && bytes.HasPrefix(bytes.TrimLeft(b[i:], " \t\r\n"), []byte("{")) {
				t.Fatalf("ScanObject %v, ScanJSON accepts", err)
			}
			return
		}
		if serr != nil || send != end {
			t.Fatalf("ScanObject ends at %d, ScanJSON at %d, %v", end, send, serr)
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(b[i:end], &want); err != nil {
			t.Fatal(err)
		}
		if len(want) != len(got) {
			t.Fatalf("%d members, want %d", len(got), len(want))
		}
		equal := false
		rebuilt := []byte("{")
		for k, m := range got {
			if w, ok := want[m.name]; !ok || string(w) != m.value {
				t.Fatalf("member %q is %q, want %q", m.name, m.value, w)
			}
			if err := ValidJSON([]byte(m.value), wide); err != nil {
				t.Fatalf("value: %v", err)
			}
			for _, o := range got[:min(k, 100)] {
				equal = equal || strings.EqualFold(o.name, m.name)
			}
			if k > 0 {
				rebuilt = append(rebuilt, ',')
			}
			if rebuilt, err = AppendJSONString(rebuilt, m.name); err != nil {
				t.Fatal(err)
			}
			rebuilt = append(append(rebuilt, ':'), m.value...)
		}
		// With the names of this level folded the answer depends on them alone.
		lim := *wide
		lim.FoldNames, lim.FoldDepth = true, 1
		_, ferr := ScanObject(b, i, &lim, nil)
		if len(got) <= 100 && equal != (ferr != nil) {
			t.Fatalf("folded names: %v, want refused=%v", ferr, equal)
		}
		first := got
		got = nil
		rebuilt = append(rebuilt, '}')
		if _, err := ScanObject(rebuilt, 0, wide, collect); err != nil || !reflect.DeepEqual(got, first) {
			t.Fatalf("written again as %q: %v", rebuilt, err)
		}
	})
}

func FuzzStringRoundTrip(f *testing.F) {
	for _, s := range []string{"", "a", "abcdefghijklmnop", "\x00\x1f\x7f\"\\/", "é漢😀", "\xff", "\xed\xa0\x80", "a\\ud800", "\u2028\ufeff\ufffd", strings.Repeat("long ", 50)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := AppendJSONString(nil, s)
		if utf8.ValidString(s) != (err == nil) {
			t.Fatalf("%v", err)
		}
		if err == nil {
			got, err := UnquoteJSON(q)
			if err != nil || string(got) != s {
				t.Fatalf("%q comes back as %q, %v", q, got, err)
			}
			var std string
			if err := json.Unmarshal(q, &std); err != nil || std != s {
				t.Fatalf("encoding/json reads %q as %q, %v", q, std, err)
			}
			var buf bytes.Buffer
			enc := json.NewEncoder(&buf)
			enc.SetEscapeHTML(false)
			if enc.Encode(s); len(q) > buf.Len()-1 {
				t.Fatalf("%q is longer than %q", q, buf.Bytes())
			}
		}
		// Taken as the text of a string, s must be understood as
		// encoding/json does, or not at all.
		raw := []byte(`"` + s + `"`)
		got, err := UnquoteJSON(raw)
		var std string
		stdErr := json.Unmarshal(raw, &std)
		switch {
		case err == nil && (stdErr != nil || string(got) != std):
			t.Fatalf("%q: %q, encoding/json %q, %v", raw, got, std, stdErr)
		case err != nil && stdErr == nil && utf8.Valid(raw) && !loneSurrogate(raw) && json.Valid(raw) && bytes.HasSuffix(raw, []byte(`"`)):
			if len(bytes.TrimSpace(raw)) == len(raw) {
				t.Fatalf("%q: %v, encoding/json %q", raw, err, std)
			}
		}
	})
}

// structured makes about n octets of the kind of data packets carry.
func structured(n int) []byte {
	b := []byte(`{"items":[`)
	for i := 0; len(b) < n-100; i++ {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"id":%d,"name":"item number %d","active":%v,"price":%d.25,"tags":["red","größe"],"note":null}`, 1000+i, i, i%2 == 0, i*37)
	}
	return append(b, `],"next":"c2Vjb25kIHBhZ2U"}`...)
}

func BenchmarkValid(b *testing.B) {
	for _, n := range []int{256, 4 << 10, 64 << 10} {
		for _, data := range []struct {
			name string
			text []byte
		}{
			{"structured", structured(n)},
			{"string", []byte(`"` + strings.Repeat("x", n-2) + `"`)},
			{"han", []byte(`"` + strings.Repeat("漢字", n/6) + `"`)},
		} {
			for _, impl := range []struct {
				name string
				run  func([]byte) bool
			}{
				{"wire", func(t []byte) bool { return ValidJSON(t, nil) == nil }},
				{"std", json.Valid},
			} {
				b.Run(fmt.Sprintf("%s/%d/%s", data.name, n, impl.name), func(b *testing.B) {
					b.SetBytes(int64(len(data.text)))
					b.ReportAllocs()
					for b.Loop() {
						if !impl.run(data.text) {
							b.Fatal("refused")
						}
					}
				})
			}
		}
	}
}

func BenchmarkScanObject(b *testing.B) {
	text := []byte(`{"v":1,"from":"alice.example","to":"bob.example","seq":41,"d":` + string(structured(4<<10)) + `}`)
	lim := &ScanLimits{FoldNames: true, FoldDepth: 1}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ScanObject(text, 0, lim, func(name, value []byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkManyMembers(b *testing.B) {
	for _, n := range []int{1000, 10000, 100000} {
		text := []byte("{")
		for i := range n {
			text = fmt.Appendf(text, `"name%d":%d,`, i, i)
		}
		text = append(text, `"x":0}`...)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if err := ValidJSON(text, wide); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
