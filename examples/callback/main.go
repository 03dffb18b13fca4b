// Command callback shows both directions of a long connection: the client asks
// for news, and the server calls the client back over the same WebSocket.
package main

import (
	"fmt"
	"log"

	"github.com/owtp-go/owtp"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	server := owtp.RandomOWTPNode()
	defer server.Close()
	// ctx.PID is the ID that the client has proved; it is also what to call.
	err := server.HandleFunc("subscribe", func(ctx *owtp.Context) {
		for i := 1; i <= 3; i++ {
			resp, err := ctx.Node().CallContext(ctx.Context(), ctx.PID, "news", map[string]any{"n": i}, nil)
			if err != nil || !resp.OK() {
				ctx.Response(nil, owtp.ErrInternalServerError, "the client does not answer")
				return
			}
		}
		ctx.Response("told", owtp.StatusSuccess, "success")
	})
	if err != nil {
		return err
	}
	err = server.Listen(owtp.ConnectConfig{
		Address: "127.0.0.1:0", ConnectType: owtp.Websocket, EnableKeyAgreement: true,
	})
	if err != nil {
		return err
	}

	client := owtp.RandomOWTPNode()
	defer client.Close()
	err = client.HandleFunc("news", func(ctx *owtp.Context) {
		fmt.Println("news", ctx.Params().Get("n"))
		ctx.Response(nil, owtp.StatusSuccess, "success")
	})
	if err != nil {
		return err
	}
	// The server's ID is known, so nobody else can answer in its place.
	err = client.Connect(server.NodeID(), owtp.ConnectConfig{
		Address: server.ListenerAddr(owtp.Websocket), ConnectType: owtp.Websocket, EnableKeyAgreement: true,
	})
	if err != nil {
		return err
	}
	resp, err := client.CallSync(server.NodeID(), "subscribe", nil)
	if err != nil {
		return err
	}
	fmt.Println("subscribe:", resp.JsonData())
	return resp.Err()
}
