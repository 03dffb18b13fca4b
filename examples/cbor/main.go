// Command cbor adds a third data format to a node: format.go is all that it takes.
// The same handler then answers in JSON, Protobuf and CBOR, whichever its caller
// asks for.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/codec"
)

type Order struct {
	Customer string   `json:"customer"`
	Prices   []uint64 `json:"prices"`
}

type Receipt struct {
	Total  uint64 `json:"total"`
	Format string `json:"format"`
}

func buy(ctx context.Context, in Order) (Receipt, error) {
	out := Receipt{Format: owtp.FromContext(ctx).DataFormat()}
	for _, price := range in.Prices {
		out.Total += price
	}
	if out.Total == 0 {
		return out, &owtp.Error{Status: owtp.ErrCustomError, Msg: "nothing to buy", Details: in}
	}
	return out, nil
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	format, err := NewCBOR()
	if err != nil {
		return err
	}
	if err := codec.Register(format); err != nil {
		return err
	}
	return sell()
}

func sell() error {
	shop := owtp.RandomOWTPNode()
	defer shop.Close()
	if err := owtp.Handle(shop, "buy", buy); err != nil {
		return err
	}
	if err := shop.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.HTTP}); err != nil {
		return err
	}

	client := owtp.RandomOWTPNode()
	defer client.Close()
	err := client.Connect("shop", owtp.ConnectConfig{
		Address: shop.ListenerAddr(owtp.HTTP), ConnectType: owtp.HTTP, EnableSignature: true, DataFormat: "cbor",
	})
	if err != nil {
		return err
	}
	ctx := context.Background()
	order := Order{Customer: "Ada", Prices: []uint64{3, 4}}
	for _, name := range []string{"", "json", "protobuf"} {
		receipt, err := owtp.Invoke[Receipt](ctx, client, "shop", "buy", order, &owtp.CallOptions{Format: name})
		if err != nil {
			return err
		}
		fmt.Println(receipt.Format, receipt.Total)
	}
	return nil
}
