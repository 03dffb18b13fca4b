package wire

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

type protoField struct {
	name, typ string
	number    int
	repeated  bool
}

var (
	protoMessage = regexp.MustCompile(`(?s)message (\w+) \{(.*?)\n\}`)
	protoLine    = regexp.MustCompile(`(?m)^  (repeated )?(\w+) (\w+) = (\d+);`)
)

func readProto(t *testing.T) map[string][]protoField {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "proto", "owtp.proto"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]protoField{}
	for _, m := range protoMessage.FindAllStringSubmatch(string(text), -1) {
		var fields []protoField
		for _, f := range protoLine.FindAllStringSubmatch(m[2], -1) {
			n, err := strconv.Atoi(f[4])
			if err != nil {
				t.Fatal(err)
			}
			fields = append(fields, protoField{f[3], f[2], n, f[1] != ""})
		}
		if strings.Count(m[2], "=") != len(fields) {
			t.Fatalf("message %s has %d fields, %d were read", m[1], strings.Count(m[2], "="), len(fields))
		}
		out[m[1]] = fields
	}
	return out
}

// owtp.proto names the fields that the encoders write: each field of a Go
// struct is changed by itself, and the number that appears or changes on the
// wire must carry the field's name.
func TestProtoFile(t *testing.T) {
	proto := readProto(t)
	structs := map[string]any{
		"Packet": samplePacket(), "Hello": sampleHello(), "HelloReply": sampleReply(), "Finish": sampleFinish(),
		"SessionRecord": sampleSession(), "CallRecord": sampleCall(),
	}
	if len(proto) != len(structs)+2 {
		t.Errorf("owtp.proto has %d messages", len(proto))
	}
	for name, sample := range structs {
		fields, ok := proto[name]
		if !ok {
			t.Errorf("owtp.proto has no message %s", name)
			continue
		}
		numbers := checkProtoOrder(t, name, fields)
		typ := reflect.TypeOf(sample).Elem()
		seen := map[int]bool{1: name != "Finish"} // the version is no Go field
		for i := range typ.NumField() {
			goName := typ.Field(i).Name
			number := numberOf(t, sample, i)
			f, ok := numbers[number]
			if !ok {
				t.Errorf("%s.%s has the number %d, which owtp.proto has not", name, goName, number)
				continue
			}
			if strings.ReplaceAll(f.name, "_", "") != strings.ToLower(goName) {
				t.Errorf("%s: the number %d is %s in Go and %s in owtp.proto", name, number, goName, f.name)
			}
			if want := protoType(typ.Field(i).Type); want != f.typ {
				t.Errorf("%s.%s is %s in owtp.proto, want %s", name, goName, f.typ, want)
			}
			seen[number] = true
		}
		for n, f := range numbers {
			if !seen[n] {
				t.Errorf("%s: owtp.proto has %s = %d, which Go has not", name, f.name, n)
			}
		}
		// The wire types of a whole sample.
		for _, r := range split(reflect.ValueOf(sample).Interface().(interface{ Append([]byte) []byte }).Append(nil)) {
			number := strings.HasPrefix(numbers[r.field].typ, "uint")
			if number != (r.typ == typeVarint) {
				t.Errorf("%s: field %d is written with wire type %d and is %s", name, r.field, r.typ, numbers[r.field].typ)
			}
		}
	}
	for name, want := range map[string]string{"Entry": "[{key string 1 false} {value string 2 false}]", "Record": "[{packets Packet 1 true}]"} {
		if got := fmt.Sprint(proto[name]); got != want {
			t.Errorf("%s is %s", name, got)
		}
	}
}

func checkProtoOrder(t *testing.T, name string, fields []protoField) map[int]protoField {
	t.Helper()
	numbers := map[int]protoField{}
	for i, f := range fields {
		if f.number != i+1 {
			t.Errorf("%s: %s = %d is the field number %d", name, f.name, f.number, i+1)
		}
		numbers[f.number] = f
	}
	return numbers
}

// numberOf empties the i-th field of a copy and reports which number vanishes.
func numberOf(t *testing.T, sample any, i int) int {
	t.Helper()
	encode := func(v reflect.Value) map[int]bool {
		out := map[int]bool{}
		for _, r := range split(v.Interface().(interface{ Append([]byte) []byte }).Append(nil)) {
			out[r.field] = true
		}
		return out
	}
	full := reflect.New(reflect.TypeOf(sample).Elem())
	full.Elem().Set(reflect.ValueOf(sample).Elem())
	if full.Elem().Type().Field(i).Name == "Format" {
		full.Elem().Field(i).SetString("protobuf")
	}
	before := encode(full)
	full.Elem().Field(i).SetZero()
	after := encode(full)
	gone := 0
	for n := range before {
		if !after[n] {
			if gone != 0 {
				t.Errorf("%T: one Go field writes two", sample)
			}
			gone = n
		}
	}
	return gone
}

func protoType(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[[]MetaEntry]():
		return "Entry"
	case reflect.TypeFor[[]string]():
		return "string"
	case reflect.TypeFor[[]Nonce]():
		return "bytes"
	}
	switch t.Kind() {
	case reflect.Uint8:
		return "uint32"
	case reflect.Uint64:
		return "uint64"
	case reflect.String:
		return "string"
	}
	return "bytes"
}
