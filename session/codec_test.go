package session

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/owtp-go/owtp/internal/atrest"
)

type treeNode struct {
	Name  string
	Next  *treeNode
	Extra any
}

type hidden struct{ secret int }

type embedsTime struct {
	time.Time
	Note string
}

func init() {
	for _, v := range []any{treeNode{}, embedsTime{}, time.March} {
		if err := RegisterType(v); err != nil {
			panic(err)
		}
	}
}

func codecSamples() []any {
	return []any{
		nil, true, -1, uint8(7), 1.5, float32(2), complex(1, 2), "text", []byte("x"), []byte(nil), time.Unix(5, 6).UTC(), time.Minute,
		json.RawMessage("{}"), []any{nil, 1, "x", []any{}}, map[string]any{"a": map[string]any{"b": []any{2.5}}}, map[int8][]string{1: nil, 2: {}},
		[2][]int{{1}, nil}, treeNode{Name: "a", Next: &treeNode{Name: "b"}, Extra: []treeNode{{Name: "c"}}}, time.March,
		embedsTime{time.Unix(1, 0).UTC(), "kept"},
	}
}

func TestRoundTrip(t *testing.T) {
	for _, want := range codecSamples() {
		b, err := encodeValue(want, 1<<20)
		if err != nil {
			t.Fatalf("%T: %v", want, err)
		}
		got, err := decodeValue(b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%T %v came back as %T %v, %v", want, want, got, got, err)
		}
		// Any cut and any longer data is an error, never a shorter value.
		for n := range b {
			if v, err := decodeValue(b[:n]); err == nil {
				t.Errorf("%T cut to %d of %d bytes is read as %v", want, n, len(b), v)
			}
		}
		if _, err := decodeValue(append(b, 0)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%T with a byte behind it: %v", want, err)
		}
	}
}

func TestRegisterTypeRefuses(t *testing.T) {
	type embedsTime struct{ A int } // has the name of the one above
	type withChan struct{ C chan int }
	type table struct{ T [1 << 20]byte }
	for _, v := range []any{nil, hidden{}, &hidden{}, []hidden{}, embedsTime{}, withChan{}, table{}, make(chan int), func() {}, map[any]int{}, struct{ A int }{}} {
		if err := RegisterType(v); !errors.Is(err, ErrUnstorable) {
			t.Errorf("RegisterType(%T): %v", v, err)
		}
	}
	_ = hidden{}.secret
}

// A field that a release has removed is skipped, and one that it has added is
// zero for a record of the one before.
func TestFieldsComeAndGo(t *testing.T) {
	b, err := encodeValue(treeNode{Name: "a", Extra: 5}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	renamed := bytes.Replace(b, []byte("\x04Name"), []byte("\x04Nome"), 1)
	got, err := decodeValue(renamed)
	if want := (treeNode{Extra: 5}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	retyped := bytes.Replace(b, append([]byte("\x04Name"), kindString), append([]byte("\x04Name"), kindRawMessage), 1)
	if _, err := decodeValue(retyped); err == nil {
		t.Error("a field of another type is no error")
	}
	twice := bytes.Replace(b, []byte("\x05Extra"), []byte("\x04Name\x10\x01b\x05Extra"), 1)
	twice = bytes.Replace(twice, []byte("treeNode\x03"), []byte("treeNode\x04"), 1)
	if _, err := decodeValue(twice); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a field that is there twice: %v", err)
	}
}

func TestUnknownType(t *testing.T) {
	b, err := encodeValue(time.March, 1000)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Replace(b, []byte("time.Month"), []byte("time.Monat"), 1)
	if _, err := decodeValue(b); !errors.Is(err, ErrUnstorable) {
		t.Errorf("a type that is not registered: %v", err)
	}
}

func TestEncoderIsBounded(t *testing.T) {
	for _, v := range []any{strings.Repeat("x", 2000), make([]byte, 2000), make([]int, 2000), map[string]any{"a": make([]byte, 2000)}, &treeNode{Name: strings.Repeat("x", 2000)}} {
		if _, err := encodeValue(v, 1000); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%T: %v, want ErrTooLarge", v, err)
		}
	}
}

func TestDecoderIsBounded(t *testing.T) {
	deep := append(bytes.Repeat([]byte{kindSlice, kindAny, 2}, maxValueDepth/2+1), kindNil)
	if _, err := decodeValue(deep); !errors.Is(err, ErrCorrupt) {
		t.Errorf("lists in lists: %v", err)
	}
	if _, err := decodeValue(deep[3:]); err != nil {
		t.Errorf("one less: %v", err)
	}
	wide := append(bytes.Repeat([]byte{kindSlice}, maxTypeDepth+1), kindInt, 0)
	if _, err := decodeValue(wide); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a type of %d parts: %v", len(wide), err)
	}
	long := []byte{kindSlice, kindInt, 0xff, 0xff, 0xff, 0xff, 0x7f, 1}
	if n := testing.AllocsPerRun(10, func() { decodeValue(long) }); n > 20 {
		t.Errorf("a list that is said to be long: %v allocations", n)
	}
}

// Types that only stored data names are not made without end.
func TestForeignTypesAreBounded(t *testing.T) {
	refused := false
	for n := range 2 * maxForeignTypes {
		data := []byte{kindSlice, kindArray, byte(n&127 | 128), byte(n >> 7), kindUint8, 0}
		if n < 128 {
			continue
		}
		if _, err := decodeValue(data); err != nil {
			refused = true
		}
	}
	if !refused || len(registered.foreign) > maxForeignTypes+1000 {
		t.Errorf("%d types were made", len(registered.foreign))
	}
	// One that this program stores for the first time only now is among them.
	for _, want := range append(codecSamples(), []map[uint16][]map[int32]complex64{nil}) {
		b, _ := encodeValue(want, 1<<20)
		if _, err := decodeValue(b); err != nil {
			t.Errorf("%T cannot be read any more: %v", want, err)
		}
	}
}

// A few octets must not stand for a list of any length: arrays of arrays of
// length 0 took eighteen seconds to read.
func TestHollowListsAreRefused(t *testing.T) {
	deep := []byte{kindArray, 48, kindArray, 48, kindArray, 48, kindArray, 48, kindArray, 48, kindArray, 0, kindInt}
	for _, b := range [][]byte{deep, append([]byte{kindSlice, kindArray, 0, kindInt}, 0xff, 0xff, 0xff, 0xff, 0x7f)} {
		if v, err := decodeValue(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%x: %T, %v", b, v, err)
		}
	}
	type none [0]int
	for _, v := range []any{[3][0]int{}, [][0]int{{}}, [][0]int(nil), []none{{}}, [2][2][0]string{}} {
		if b, err := encodeValue(v, 1<<20); !errors.Is(err, ErrUnstorable) {
			t.Errorf("%T: %x, %v", v, b, err)
		}
	}
	for _, v := range []any{[0]int{}, [3][1]int{}, map[string][0]int{"a": {}}} {
		if _, err := encodeValue(v, 1<<20); err != nil {
			t.Errorf("%T: %v", v, err)
		}
	}
}

func FuzzDecodeValue(f *testing.F) {
	for _, v := range codecSamples() {
		b, err := encodeValue(v, 1<<20)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{kindMap, kindFloat64, kindAny, 2})
	f.Add(bytes.Repeat([]byte{kindSlice}, 100))
	f.Add([]byte{kindArray, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, kindArray, 0xff, 0xff, 3, kindInt})
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := decodeValue(data)
		if err != nil {
			return
		}
		// What was read can be written, and reads as the same again.
		b, err := encodeValue(v, math.MaxInt32)
		if err != nil {
			t.Fatalf("%T %v: %v", v, v, err)
		}
		if _, err := decodeValue(b); err != nil {
			t.Fatalf("%T %v: %v", v, v, err)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	r := record{life: newLife(5, 6)}
	f.Add(r.encode())
	r.set("user", []byte{kindInt, 2})
	r.set("", nil)
	f.Add(r.encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRecord(data)
		if err != nil {
			return
		}
		again, err := parseRecord(r.encode())
		if err != nil || !reflect.DeepEqual(r, again) {
			t.Fatalf("%+v, then %+v, %v", r, again, err)
		}
		for _, f := range r.fields {
			if got, found, err := findField(data[headerLen:], f.name); !found || err != nil || !bytes.Equal(got, f.data) {
				t.Fatalf("field %q: %x, %v, %v", f.name, got, found, err)
			}
		}
	})
}

// Whatever lies in the store where a sealed session is expected: only what the
// manager has sealed for that place opens, and nothing counts as absent.
func FuzzStoredSession(f *testing.F) {
	newKeys := func(key, previous byte) *atrest.Keys {
		k, err := atrest.NewKeys(bytes.Repeat([]byte{key}, 32), bytes.Repeat([]byte{previous}, 32), "")
		if err != nil {
			f.Fatal(err)
		}
		return k
	}
	// The same in every process: the fuzzer's workers seal anew.
	r := record{life: life{birth: 1, created: 5}}
	r.set("user", []byte{kindInt, 2})
	plain := r.encode()
	seal := func(keys *atrest.Keys, place string) []byte {
		b, err := keys.Seal([]byte{sealedFormat}, bytes.NewReader(make([]byte, 32)), purposeUser, place, plain)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	reader, before := newKeys(2, 1), newKeys(1, 2)
	sealed := make(map[string]bool)
	for _, keys := range []*atrest.Keys{reader, before} {
		b := seal(keys, "s/web/peer")
		sealed[string(b)] = true
		f.Add(b)
		f.Add(b[:sealOverhead])
		f.Add(append([]byte{recordFormat}, b[1:]...))
		f.Add(seal(keys, "s/web/other"))
	}
	f.Add(plain)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, stored []byte) {
		opened, _, err := open(reader, "s/web/peer", stored)
		if good := sealed[string(stored)]; good != (err == nil) || good && !bytes.Equal(opened, plain) {
			t.Fatalf("as sealed: %v: %x, %v", good, opened, err)
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
		if _, stale, err := open(nil, "s/web/peer", stored); stale || err == nil && len(stored) > 0 && stored[0] == sealedFormat {
			t.Fatal("a manager without keys takes a sealed session")
		}
	})
}

// traitsOnly is a store that is never asked.
type traitsOnly struct{ Provider }

func (traitsOnly) Traits() Traits { return Traits{Shared: true} }

func TestCloseErasesKeys(t *testing.T) {
	for what, cfg := range map[string]*ManagerConfig{"own": {StoreKey: bytes.Repeat([]byte{1}, 32)}, "a node's": nil} {
		m, err := ManagerOf(traitsOnly{}, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.UseStoreKey(bytes.Repeat([]byte{2}, 32), nil); err != nil {
			t.Fatal(err)
		}
		keys := m.keys.Load()
		if _, err := keys.Derive("x"); err != nil {
			t.Fatal(err)
		}
		m.Close()
		if _, err := keys.Derive("x"); !errors.Is(err, atrest.ErrErased) {
			t.Errorf("%s: the keys are still there: %v", what, err)
		}
		if m.cfg.StoreKey != nil {
			t.Errorf("%s: the configuration still has the key", what)
		}
	}
}
