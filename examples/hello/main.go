// Command hello is the first program of the README: a server and a client in
// one process. The method is bound once and called in two ways.
package main

import (
	"fmt"
	"log"

	"github.com/owtp-go/owtp"
)

// greet answers every caller, whichever transport the call came over.
func greet(ctx *owtp.Context) {
	name := ctx.Params().Get("name").String()
	ctx.Resp = owtp.Response{
		Status: owtp.StatusSuccess,
		Msg:    "success",
		Result: map[string]any{"text": "hello " + name, "proved": ctx.Proved()},
	}
}

func main() {
	// The server: two listeners, one handler. Port 0 is any free one.
	server := owtp.RandomOWTPNode()
	defer server.Close()
	must(server.HandleFunc("greet", greet))
	must(server.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.HTTP}))
	must(server.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.Websocket}))

	client := owtp.RandomOWTPNode()
	defer client.Close()

	// Over HTTP, signed: each side proves who it is with every message.
	must(client.Connect("signed", owtp.ConnectConfig{
		Address:         server.ListenerAddr(owtp.HTTP),
		ConnectType:     owtp.HTTP,
		EnableSignature: true,
	}))
	call(client, "signed")

	// Over WebSocket, sealed: after the agreement nobody on the way can read.
	must(client.Connect("sealed", owtp.ConnectConfig{
		Address:     server.ListenerAddr(owtp.Websocket),
		ConnectType: owtp.Websocket,
	}))
	must(client.KeyAgreement("sealed", "aes"))
	call(client, "sealed")
}

func call(client *owtp.OWTPNode, peer string) {
	params := map[string]any{"name": "chance"}
	must(client.Call(peer, "greet", params, true, func(resp owtp.Response) {
		data := resp.JsonData()
		fmt.Printf("%s: %s (caller proved: %v)\n", peer, data.Get("text"), data.Get("proved"))
	}))
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
