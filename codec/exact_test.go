package codec

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

type priced struct {
	Key    string  `json:"key"`
	Amount float64 `json:"amount"`
}

type Owner struct {
	Name string `json:"name"`
	Ages []int  `json:"ages"`
}

type basket struct {
	Owner
	Items  []priced          `json:"items"`
	ByName map[string]priced `json:"byName"`
	Next   *basket           `json:"next"`
	Free   any               `json:"free"`
	Labels map[string]string `json:"labels"`
	A      int               `json:"a"`
	Upper  int               `json:"A"`
	Plain  int
	Own    ownNames `json:"own"`
	Hidden int      `json:"-"`
}

type ownNames struct{ seen string }

func (o *ownNames) UnmarshalJSON(b []byte) error { o.seen = string(b); return nil }
func (o ownNames) MarshalJSON() ([]byte, error)  { return []byte(o.seen), nil }

// Who reads by path and who reads into a struct must see one value.
func TestNamesMatchExactly(t *testing.T) {
	for _, c := range []struct{ text, field string }{
		{`{"AMOUNT":1}`, "AMOUNT"},
		{`{"amount":1,"Amount":1000}`, "Amount"},
		{`{"\u0041mount":1}`, "Amount"},
		{`{"\u212aey":"the sign of Kelvin"}`, "\u212aey"},
		{`{"key":"a \" { [ , \\","aMount":1}`, "aMount"},
		{" {\n\t\"x\" : [ 1 , {\"amount\":[]} ] , \"KEY\" : \"v\" } ", "KEY"},
	} {
		wantMisspelt(t, c.text, new(priced), c.field)
	}
	for _, c := range []struct{ text, field string }{
		{`{"items":[{},{"amount":2,"KEY":"x"}]}`, "items.1.KEY"},
		{`{"byName":{"KEY":{"key":"k"},"b":{"Key":"k"}}}`, "byName.b.Key"},
		{`{"next":{"next":{"Items":[]}}}`, "next.next.Items"},
		{`{"Name":"promoted"}`, "Name"},
		{`{"plain":1}`, "plain"},
	} {
		wantMisspelt(t, c.text, new(basket), c.field)
	}
	text := `{"name":"Ada","ages":[1,2],"owner":{"NAME":1},"items":[{"key":"\\\"","amount":1.5},{}],"byName":{"KEY":{"key":"k"},"Amount":{}},
		"next":{"a":3,"A":4,"next":null},"free":{"AMOUNT":1,"Items":[{"KEY":1}]},"labels":{"Amount":"x","amount":"y"},"Plain":5,"own":{"SEEN":1},"hidden":7,"unknown":[{"KEY":{}}]}`
	for _, format := range []Format{JSON(), Protobuf()} {
		got := decodeText(t, format, text, new(basket))
		if got != nil {
			t.Errorf("%s: %v", format.Name(), got)
		}
		if err := decodeText(t, format, `{"AMOUNT":1}`, new(map[string]any)); err != nil {
			t.Errorf("%s: names in a map are its own: %v", format.Name(), err)
		}
	}
}

// decodeText decodes what a text in JSON is in a format.
func decodeText(t *testing.T, f Format, text string, into any) error {
	t.Helper()
	data, err := Encode(f, json.RawMessage(text))
	if err != nil {
		t.Fatal(err)
	}
	return Decode(f, data, into)
}

func wantMisspelt(t *testing.T, text string, into any, field string) {
	t.Helper()
	for _, format := range []Format{JSON(), Protobuf()} {
		var e *Error
		if err := decodeText(t, format, text, into); !errors.As(err, &e) || e.Field != field || !strings.Contains(e.Msg, "spelt") {
			t.Errorf("%s: %s gives %v, want field %q", format.Name(), text, err, field)
		}
	}
}

// Types that hold themselves are looked through once, and values of them checked
// at every depth.
func TestNamesOfTypesThatHoldThemselves(t *testing.T) {
	type list []list
	type tree struct {
		Left, Right *tree
		More        map[string][]tree `json:"more"`
	}
	if err := exactNames([]byte(`[[],[[]]]`), reflect.TypeFor[*list]()); err != nil {
		t.Error(err)
	}
	if err := exactNames([]byte(`{"Left":{"Right":{"more":{"more":[{"Left":{}}]}}}}`), reflect.TypeFor[tree]()); err != nil {
		t.Error(err)
	}
	if err := exactNames([]byte(`{"Left":{"Right":{"more":{"more":[{"left":{}}]}}}}`), reflect.TypeFor[tree]()); err == nil {
		t.Error("a name deep inside is not looked at")
	}
}

// The walk ends where the text does, whatever is in it: a step too far or too
// short would check names against the wrong type.
func FuzzExactNames(f *testing.F) {
	for _, text := range []string{
		`{"items":[{"key":"a\\\"]","amount":-1e5}],"next":{"byName":{"x":{}}},"free":[[{}],{"a":[]}],"A":1,"a":2}`,
		`[]`, `"\\"`, ` { "items" : [ 1 , null , "]" ] } `, `{"own":{"A":"}"},"Plain":0}`, `{"items":{"key":1}}`, `null`, `{"":{"":[]}}`,
	} {
		f.Add([]byte(text))
	}
	n := namesOf(reflect.TypeFor[basket]())
	f.Fuzz(func(t *testing.T, text []byte) {
		if !json.Valid(text) {
			return
		}
		r := nameReader{text: text}
		if err := r.value(n); err != nil {
			return
		}
		if rest := strings.TrimSpace(string(text[r.at:])); rest != "" {
			t.Errorf("%q: %q is left", text, rest)
		}
		// What passes decodes the same where case counts.
		var loose basket
		if json.Unmarshal(text, &loose) != nil {
			return
		}
		var exact map[string]json.RawMessage
		if json.Unmarshal(text, &exact) != nil || exact == nil {
			return
		}
		_, has := exact["items"]
		if !has && loose.Items != nil {
			t.Errorf("%q: items that have another name", text)
		}
	})
}
