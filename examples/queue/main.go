// Command queue shows two nodes that reach only a message broker: a client
// places an order, and the server calls the client back when it is filled. The
// broker runs in this program, so that nothing has to be installed; with RabbitMQ
// or a nats-server only the address is another.
package main

import (
	"crypto/rand"
	"fmt"
	"log"

	"github.com/owtp-go/owtp"
	_ "github.com/owtp-go/owtp/contrib/nats" // makes nats:// and tls:// known
	"github.com/owtp-go/owtp/contrib/nats/broker"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	password := rand.Text()
	b, err := broker.Start(broker.Options{Users: []broker.User{{Name: "node", Password: password}}})
	if err != nil {
		return err
	}
	defer b.Close()

	server := owtp.RandomOWTPNode()
	defer server.Close()
	if err := serve(server, b.URL(), password); err != nil {
		return err
	}
	client := owtp.RandomOWTPNode()
	defer client.Close()
	return order(client, server.NodeID(), b.URL(), password)
}

// serve takes requests from the queue that is named after the node's ID.
func serve(server *owtp.OWTPNode, address, password string) error {
	if err := server.HandleFunc("order", fill); err != nil {
		return err
	}
	return server.Listen(owtp.ConnectConfig{
		ConnectType: owtp.MQ,
		Address:     address, // amqps://host/vhost, amqp://, tls://host or nats://
		Account:     "node",
		Password:    password,

		EnableKeyAgreement: true, // the broker's owner reads nothing
	})
}

// fill calls its caller back: ctx.PID is the ID that the caller has proved.
func fill(ctx *owtp.Context) {
	coin := ctx.Params().Get("coin").String()
	resp, err := ctx.Node().CallContext(ctx.Context(), ctx.PID, "filled", map[string]any{"coin": coin}, nil)
	if err != nil || !resp.OK() {
		ctx.Response(nil, owtp.ErrInternalServerError, "the client does not answer")
		return
	}
	ctx.Response("done", owtp.StatusSuccess, "success")
}

// order calls the server by its ID, from which its queue is known.
func order(client *owtp.OWTPNode, serverID, address, password string) error {
	err := client.HandleFunc("filled", func(ctx *owtp.Context) {
		fmt.Println("filled:", ctx.Params().Get("coin"))
	})
	if err != nil {
		return err
	}
	err = client.Connect(serverID, owtp.ConnectConfig{
		ConnectType:        owtp.MQ,
		Address:            address,
		Account:            "node",
		Password:           password,
		EnableKeyAgreement: true,
	})
	if err != nil {
		return err
	}
	resp, err := client.CallSync(serverID, "order", map[string]any{"coin": "BTC"})
	if err != nil {
		return err
	}
	fmt.Println("order:", resp.JsonData())
	return resp.Err()
}
