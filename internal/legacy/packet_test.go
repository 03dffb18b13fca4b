package legacy

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/owtp-go/owtp/identity"
)

const maxPacket = 1 << 20

func readVectors(t testing.TB, name string, into any) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(name, err)
	}
}

// Each file of vectors has tests that read it and count what they find. A new one
// needs some.
func TestVectorFiles(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range files {
		files[i] = filepath.Base(name)
	}
	if want := []string{"encryption.json", "identity.json", "keyagreement.json", "signature.json", "transcripts.json", "transcripts_mq.json"}; !slices.Equal(files, want) {
		t.Errorf("there are %v, and tests for %v", files, want)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(t testing.TB, text string) *Packet {
	t.Helper()
	p, err := ParsePacket([]byte(text), maxPacket)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return p
}

func privateKey(t testing.TB, text string) *identity.PrivateKey {
	t.Helper()
	k, err := identity.ParsePrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// recordedPackets are all messages of the recorded exchanges, whoever wrote them.
func recordedPackets(t testing.TB) []string {
	var packets []string
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, member := range v {
				walk(member)
			}
		case []any:
			for _, element := range v {
				walk(element)
			}
		case string:
			if strings.HasPrefix(v, `{"r":`) {
				packets = append(packets, v)
			}
		}
	}
	for _, name := range []string{"transcripts.json", "transcripts_mq.json"} {
		var all any
		before := len(packets)
		readVectors(t, name, &all)
		if walk(all); len(packets) == before {
			t.Fatalf("%s holds no packets", name)
		}
	}
	slices.Sort(packets)
	return packets
}

// What the nodes of version 1 have written is written by us in the same octets;
// what was made by hand to try them is read.
func TestRecordedPackets(t *testing.T) {
	complete := regexp.MustCompile(`,"s2":"\w*"},"v":-?\d+}$`)
	same := 0
	for _, text := range recordedPackets(t) {
		b, err := parse(t, text).Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if !complete.MatchString(text) {
			continue
		}
		if same++; string(b) != text {
			t.Errorf("%s\nis written as\n%s", text, b)
		}
	}
	if same < 100 {
		t.Fatalf("only %d packets were recorded from nodes", same)
	}
}

func TestLenientReading(t *testing.T) {
	for _, text := range []string{
		`{"r":1,"m":"a","n":18446744073709551615,"t":-5,"d":"x","s":"","k":{"pk":"","tpk":"","et":"","pko":"","tpo":"","sb":"","sa":"y","s2":""},"v":1}`,
		" {\n\"r\" : \"1\", \"m\":\"a\",\"n\":\"18446744073709551615\",\"t\":\"-5\",\"d\": \"x\" ,\"k\":{\"sa\":\"y\"},\"v\":\"1\"}\n",
		`{"r":1,"m":"a","n":18446744073709551615,"t":-5,"d":"x","k":{"sa":"n"},"v":1,"z":"y","unknown":[]}`,
		`{"r":1,"m":"a","n":18446744073709551615,"t":-5,"d":"x","k":{"sa":"y","sa":"n"},"v":1,"r":2,"n":3,"d":{"evil":true},"k":null}`,
		`{"z":"y","z":"n","s":null,"v":1,"k":null,"d":"x","t":-5,"n":18446744073709551615,"m":"\u0061","r":1}`,
	} {
		got, err := json.Marshal(parse(t, text))
		want := `{"r":1,"m":"a","n":18446744073709551615,"t":-5,"d":"x","s":"","k":{"pk":"","tpk":"","et":"","pko":"","tpo":"","sb":"","sa":"y","s2":""},"v":1}`
		if err != nil || string(got) != want {
			t.Errorf("%s is read as %s: %v", text, got, err)
		}
	}
	if p := parse(t, `{}`); p.Kind != 0 || p.Version != 0 || p.Data != nil {
		t.Errorf("an empty object is read as %+v", p)
	}
}

func TestFlattening(t *testing.T) {
	for data, want := range map[string]string{
		`null`: "", `""`: "", `"a\nb\u003c"`: "a\nb<", `{ "a" : "\u003c" }`: `{ "a" : "\u003c" }`, `[1, 2]`: "[1, 2]",
		`12`: "12", `-42`: "-42", `1e+21`: "1000000000000000000000", `2.50`: "2.5", `1e-7`: "0.0000001", `true`: "true", `false`: "false",
		`123456789012345678901234567890`: "123456789012345678901234567890",
	} {
		text, err := parse(t, `{"d": `+data+` }`).Text()
		if err != nil || text != want {
			t.Errorf("%s is flattened to %q: %v", data, text, err)
		}
	}
	if text, err := parse(t, `{"r":1}`).Text(); text != "" || err != nil {
		t.Errorf("no data is flattened to %q: %v", text, err)
	}
}

func TestRefusedPackets(t *testing.T) {
	many := make(map[string]int)
	for n := range maxMembers + 1 {
		many[strings.Repeat("a", n)] = n
	}
	manyText, err := json.Marshal(many)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nothing": "", "no JSON": "hello", "cut": `{"r":1`, "array": `[]`, "null": `null`, "number": `1`,
		"text behind": `{"r":1} {"r":2}`, "octet behind": "{\"r\":1}\x00", "not UTF-8": "{\"m\":\"\xff\"}", "byte order mark": "\ufeff{}",
		"n is 2^64": `{"n":18446744073709551616}`, "n is negative": `{"n":-1}`, "n is no integer": `{"n":1.5}`, "n has an exponent": `{"n":1e3}`,
		"n is a word": `{"n":"x"}`, "n is empty": `{"n":""}`, "n is true": `{"n":true}`, "n is quoted twice": `{"n":"\"1\""}`,
		"t is 2^63": `{"t":9223372036854775808}`, "v is an object": `{"v":{}}`, "r is an array": `{"r":[1]}`,
		"m is a number": `{"m":1}`, "m is long": `{"m":"` + strings.Repeat("m", 129) + `"}`, "s is long": `{"s":"` + strings.Repeat("1", 89) + `"}`,
		"k is a string": `{"k":"x"}`, "k.pk is long": `{"k":{"pk":"` + strings.Repeat("1", 89) + `"}}`, "k.et is a number": `{"k":{"et":1}}`, "z is an object": `{"z":{}}`,
		"d is out of range": `{"d":1e999}`, "deep": `{"d":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`,
		"very deep": strings.Repeat("[", 100_000), "many members": string(manyText),
		"too long": `{"m":"a"}` + strings.Repeat(" ", maxPacket),
	} {
		if _, err := ParsePacket([]byte(text), maxPacket); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	parse(t, `{"d":`+strings.Repeat("[", 63)+`"[[[\"[["`+strings.Repeat("]", 63)+`}`)
}

func TestRefusedData(t *testing.T) {
	var p Packet
	for _, value := range []string{"", "x", "{} {}", `{"a":1,"a":2}`, strings.Repeat("[", 64) + strings.Repeat("]", 64)} {
		if err := p.SetJSON([]byte(value)); err == nil {
			t.Errorf("%q is taken as data", value)
		}
	}
	if err := p.SetText("\xff"); err == nil {
		t.Error("text that is not UTF-8 is taken: the receiver would read something else than was signed")
	}
}

// Whatever is read is written in octets that are read as the same packet.
func FuzzParsePacket(f *testing.F) {
	for _, text := range recordedPackets(f)[:20] {
		f.Add([]byte(text))
	}
	f.Add([]byte(`{"r":"1","d":1e5,"z":"a","k":{"sa":null}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePacket(b, 4096)
		if err != nil {
			if !errors.Is(err, ErrMalformed) || p != nil {
				t.Fatal(p, err)
			}
			return
		}
		text, err := p.Text()
		if err != nil {
			t.Fatal(err)
		}
		sent, err := p.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		again := parse(t, string(sent))
		if flat, err := again.Text(); err != nil || len(p.Data) > 0 && p.Data[0] == '"' && flat != text {
			t.Fatalf("%q, then %q: %v", text, flat, err)
		}
		if twice, err := again.Append(nil); err != nil || !bytes.Equal(twice, sent) {
			t.Fatalf("%s\n%s: %v", sent, twice, err)
		}
	})
}
