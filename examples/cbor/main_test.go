package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/codec"
	"github.com/owtp-go/owtp/transport/transporttest"
)

func TestMain(m *testing.M) { os.Exit(transporttest.RunMain(m)) }

var once sync.Once

func Example() {
	registered()
	if err := sell(); err != nil {
		os.Stdout.WriteString(err.Error())
	}
	// Output:
	// cbor 7
	// json 7
	// protobuf 7
}

func registered() {
	once.Do(func() {
		f, err := NewCBOR()
		if err == nil {
			err = codec.Register(f)
		}
		if err != nil {
			panic(err)
		}
	})
}

func shop(t *testing.T) (client *owtp.OWTPNode) {
	t.Helper()
	registered()
	host := owtp.RandomOWTPNode()
	client = owtp.RandomOWTPNode()
	t.Cleanup(func() { client.Close(); host.Close() })
	must(t, owtp.Handle(host, "buy", buy))
	must(t, host.HandleFunc("read", func(ctx *owtp.Context) {
		ctx.Response([]any{ctx.Params().Get("prices.1").Uint(), ctx.Params().Get("big").Uint(), ctx.DataFormat()}, owtp.StatusSuccess, "")
	}))
	cfg := owtp.ConnectConfig{Address: t.Name(), ConnectType: owtp.Memory}
	must(t, host.Listen(cfg))
	cfg.DataFormat = "cbor"
	must(t, client.Connect("shop", cfg))
	return client
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCBORReadsByPath(t *testing.T) {
	client := shop(t)
	for _, params := range []any{
		map[string]any{"prices": []int{1, 2}, "big": uint64(1<<64 - 1)},
		json.RawMessage(`{"prices":[1,2],"big":18446744073709551615}`),
	} {
		resp, err := client.CallSync("shop", "read", params)
		must(t, err)
		if got := resp.JsonData().Raw; got != `[2,18446744073709551615,"cbor"]` {
			t.Errorf("%T: read %s", params, got)
		}
	}
}

func TestCBORErrors(t *testing.T) {
	client := shop(t)
	_, err := owtp.Invoke[Receipt](context.Background(), client, "shop", "buy", map[string]any{"customer": 7})
	if owtp.StatusOf(err) != owtp.ErrBadRequest || !strings.Contains(err.Error(), `field "customer"`) {
		t.Errorf("a number for a name: %v", err)
	}
	_, err = owtp.Invoke[Receipt](context.Background(), client, "shop", "buy", Order{Customer: "Ada"})
	var e *owtp.Error
	var order Order
	if !errors.As(err, &e) || e.Status != owtp.ErrCustomError || e.DecodeDetails(&order) != nil || order.Customer != "Ada" {
		t.Errorf("nothing to buy: %v with %v", err, order)
	}
}

// What is not well formed reaches no handler.
func TestCBORRefuses(t *testing.T) {
	client := shop(t)
	deep := strings.Repeat("\x81", 70) + "\x00"
	for name, data := range map[string]string{
		"one name twice": "\xa2\x61a\x01\x61a\x02", "cut off": "\x82\x01", "more than one": "\x01\x01", "nested too deep": deep,
		"no UTF-8": "\x61\xff", "NaN": "\xf9\x7e\x00", "a name that is a number": "\xa1\x01\x01", "a claim of length": "\x9b\x00\x00\x00\xff\xff\xff\xff\xff",
	} {
		// Raw is checked where it is sent, so that it goes as another's would.
		f, err := codec.Lookup("cbor")
		must(t, err)
		if err := codec.Check(f, []byte(data)); err == nil {
			t.Errorf("%s passes", name)
		}
		if _, err := client.CallSync("shop", "read", codec.Raw{Format: "cbor", Data: []byte(data)}); owtp.StatusOf(err) != owtp.ErrBadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
}
