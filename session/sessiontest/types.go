package sessiontest

import (
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"net/netip"
	"net/url"
	"reflect"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
)

// Account is a struct as programs keep in sessions.
type Account struct {
	Name    string
	Level   Level
	Balance *big.Int
	Key     [32]byte
	Seen    time.Time
	From    netip.Addr
	Tags    map[string][]string
	Extra   any
	Parent  *Account
	Owner   struct{} `session:"-"`
	_       int      `session:"-"`
}

// Level is a named number.
type Level uint8

func sampleAccount() Account {
	return Account{
		Name: "alice", Level: 3, Balance: big.NewInt(math.MaxInt64), Key: [32]byte{1, 31: 2},
		Seen: time.Date(2024, 2, 29, 12, 0, 0, 5, time.UTC), From: netip.MustParseAddr("fe80::1%eth0"),
		Tags: map[string][]string{"a": {"b"}, "nil": nil, "empty": {}}, Extra: []any{1, "x", Level(2)},
		Parent: &Account{Name: "root", Balance: new(big.Int)},
	}
}

func samples() []any {
	zone := time.FixedZone("", 8*3600)
	one := 1
	return []any{
		nil, true, false, int(-1), int8(math.MinInt8), int16(math.MinInt16), int32(math.MinInt32), int64(math.MinInt64),
		uint(1), uint8(255), uint16(65535), uint32(math.MaxUint32), uint64(math.MaxUint64),
		float32(1.5), math.MaxFloat64, math.Inf(-1), math.Copysign(0, -1), complex64(1 + 2i), 3 - 4i,
		"", "text", "会话\x00\xff", []byte("octets"), []byte{}, []byte(nil), [4]byte{1, 2, 3, 4},
		time.Date(2030, 1, 2, 3, 4, 5, 678, zone), time.Time{}, 90 * time.Second, json.RawMessage(`{"a": 1}`), json.RawMessage(nil), json.Number("1e400"),
		[]string{"a", ""}, []string{}, []string(nil), []int{1, 2}, [][]int64{{1}, nil, {}}, []any{nil, 1, int64(1), "x", []any{}}, []any(nil),
		map[string]any{"a": map[string]any{"b": []any{1, nil, 2.5}}, "n": nil}, map[string]any{}, map[string]any(nil),
		map[int]string{1: "a"}, map[string]int{}, map[uint8]bool{1: true}, map[Level]time.Duration{1: 1},
		[]time.Time{time.Unix(1, 0).UTC()}, map[string]time.Duration{"a": 1}, []json.RawMessage{json.RawMessage("1")},
		&one, (*int)(nil), Level(7), sampleAccount(), []Account{sampleAccount(), {}}, map[string]*Account{"nil": nil},
		*big.NewInt(-5), url.URL{Scheme: "https", Host: "example.org", Path: "/"},
	}
}

func testSessionTypes(t *testing.T, s *store) {
	for _, v := range []any{Account{}, url.URL{}} {
		must(t, session.RegisterType(v))
	}
	m := s.manager(t, session.ManagerConfig{})
	for _, want := range samples() {
		must(t, m.Put("peer", "v", want))
		got, err := m.Session("peer").Get(t.Context(), "v")
		if err != nil {
			t.Errorf("Get of a %T: %v", want, err)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("put %T %+v, got %T %+v", want, want, got, got)
		}
	}
	nan := math.Float64frombits(0x7ff8000000000001)
	must(t, m.Put("peer", "v", nan))
	if got, _ := m.Get("peer", "v").(float64); math.Float64bits(got) != math.Float64bits(nan) {
		t.Errorf("NaN came back as %x", math.Float64bits(got))
	}
	// What was put or got is nobody else's.
	list := []int{1, 2, 3}
	must(t, m.Put("peer", "v", list))
	list[0] = 9
	m.Get("peer", "v").([]int)[1] = 9
	if got := m.Get("peer", "v"); !reflect.DeepEqual(got, []int{1, 2, 3}) {
		t.Errorf("a stored list changed to %v", got)
	}
	if _, err := session.Get[string](t.Context(), m.Session("peer"), "v"); !errors.Is(err, session.ErrUnstorable) {
		t.Errorf("Get[string] of a list: %v", err)
	}
}

func testSessionUnstorable(t *testing.T, s *store) {
	type local struct{ A int }
	type node struct{ Next any }
	must(t, session.RegisterType(node{}))
	cycle := &node{}
	cycle.Next = cycle
	list := make([]any, 1)
	list[0] = list
	m := s.manager(t, session.ManagerConfig{})
	must(t, m.Put("peer", "v", "before"))
	for _, v := range []any{
		make(chan int), func() {}, uintptr(1), local{}, &local{}, []local{}, map[string]any{"a": local{}}, struct{ A int }{}, []error{nil},
		map[local]int{}, map[any]int{}, map[[1]int]int{}, time.March, cycle, list, [1 << 20]byte{},
	} {
		if err := m.Put("peer", "v", v); !errors.Is(err, session.ErrUnstorable) {
			t.Errorf("Put of a %T: %v, want ErrUnstorable", v, err)
		}
	}
	if got := m.GetString("peer", "v"); got != "before" {
		t.Errorf("a refused value changed the field to %q", got)
	}
}
