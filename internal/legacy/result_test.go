package legacy

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// Every response that was recorded in clear is read, and written again as it was.
func TestRecordedResults(t *testing.T) {
	seen := 0
	for _, text := range recordedPackets(t) {
		p := parse(t, text)
		if p.Kind != Response || p.Data[0] != '{' {
			continue
		}
		seen++
		r, err := ParseResult(p.Data)
		if err != nil {
			t.Fatalf("%s: %v", p.Data, err)
		}
		if b, err := r.Append(nil); err != nil || string(b) != string(p.Data) {
			t.Errorf("%s is written as %s, %v", p.Data, b, err)
		}
	}
	if seen < 20 {
		t.Errorf("%d responses only", seen)
	}
}

func TestRefusedResults(t *testing.T) {
	good := `{"status":200,"msg":"success","result":null}`
	if _, err := ParseResult([]byte(" " + good + "\n")); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nothing":            "",
		"no object":          `[200,"success",null]`,
		"not closed":         good[:len(good)-1],
		"two values":         good + "{}",
		"junk behind":        good + "\x10",
		"no status":          `{"msg":"","result":null}`,
		"no result":          `{"status":200,"msg":"success"}`,
		"no msg":             `{"status":200,"result":null}`,
		"unknown member":     `{"status":200,"msg":"success","result":null,"more":1}`,
		"other case":         `{"Status":200,"msg":"success","result":null}`,
		"status twice":       `{"status":200,"status":200,"msg":"success","result":null}`,
		"escaped twice":      `{"status":200,"\u0073tatus":200,"msg":"success","result":null}`,
		"twice within":       `{"status":200,"msg":"success","result":{"a":1,"a":2}}`,
		"negative status":    `{"status":-1,"msg":"success","result":null}`,
		"huge status":        `{"status":18446744073709551616,"msg":"success","result":null}`,
		"fraction":           `{"status":200.0,"msg":"success","result":null}`,
		"status is a string": `{"status":"200","msg":"success","result":null}`,
		"status is null":     `{"status":null,"msg":"success","result":null}`,
		"msg is null":        `{"status":200,"msg":null,"result":null}`,
		"msg is an object":   `{"status":200,"msg":{},"result":null}`,
		"not UTF-8":          "{\"status\":200,\"msg\":\"\xff\",\"result\":null}",
		"deep":               `{"status":200,"msg":"","result":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`,
		"many":               `{"status":200,"msg":"","result":[` + strings.Repeat("0,", 1<<20) + `0]}`,
	} {
		if r, err := ParseResult([]byte(text)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, %v", name, r, err)
		}
	}
}

// What version 1 encrypts of each kind of parameters.
func TestSealJSON(t *testing.T) {
	runs, _ := readAgreements(t)
	s, err := runs[0].initiator(t).Finish(Keys{Responder: runs[0].ResponderPublic.Base58, ResponderEphemeral: runs[0].ResponderTmpPublic.Base58, ResponderCheck: runs[0].SB.Base58}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]string{
		`null`: `null`, `""`: ``, `"bare \"text\""`: `bare "text"`, `{ "a" : "<" }`: `{"a":"\u003c"}`, `[1, 2]`: `[1,2]`, `12`: `12`, `true`: `true`,
	} {
		p := &Packet{Kind: Request, Nonce: 7, Version: 1}
		if err := p.SealJSON(s, []byte(value)); err != nil {
			t.Fatal(value, err)
		}
		text, err := p.Text()
		if err != nil {
			t.Fatal(value, err)
		}
		if got, err := s.Open(text, 1, 7); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", value, got, err)
		}
	}
	s.Erase()
	if err := new(Packet).SealJSON(s, []byte(`1`)); err == nil {
		t.Error("sealed with nothing")
	}
}

func FuzzParseResult(f *testing.F) {
	f.Add([]byte(`{"status":200,"msg":"success","result":{"a":[1,"b"]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := ParseResult(text)
		if err != nil {
			return
		}
		if !json.Valid(text) {
			t.Fatalf("took %q", text)
		}
		b, err := r.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseResult(b); err != nil || again.Status != r.Status || again.Msg != r.Msg {
			t.Errorf("%s gives %s, %v", text, b, err)
		}
	})
}
