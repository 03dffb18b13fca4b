package main

import (
	"fmt"
	"log"

	"github.com/owtp-go/owtp"         // changed
	"github.com/owtp-go/owtp/session" // changed
)

func main() {
	cert, err := owtp.NewCertificate(owtp.RandomPrivateKey())
	check(err)
	host := owtp.NewOWTPNode(cert, 0, 0)
	defer host.Close()

	sessions, err := owtp.NewSessionManager("memory", &session.ManagerConfig{Gclifetime: 10})
	check(err)
	defer sessions.Close()
	go sessions.GC()
	check(host.SetPeerstore(sessions)) // changed: an error

	check(host.HandleFunc("getBalance", func(ctx *owtp.Context) { // changed: an error
		address := ctx.Params().Get("address").String()
		check(ctx.SetSession("last", address)) // changed: an error
		ctx.Response(map[string]string{"address": address, "balance": "12.5"}, owtp.StatusSuccess, "success")
	}))
	config := owtp.ConnectConfig{Address: "127.0.0.1:9436", ConnectType: owtp.Websocket, EnableSignature: true}
	check(host.Listen(config)) // changed: an error

	client := owtp.RandomOWTPNode()
	defer client.Close()
	check(client.Connect(host.NodeID(), config)) // changed: one error, and the peer's ID is proved
	check(client.KeyAgreement(host.NodeID(), "aes"))
	params := map[string]string{"address": "a1"}
	check(client.Call(host.NodeID(), "getBalance", params, true, func(resp owtp.Response) {
		fmt.Println(resp.Status, resp.Msg, resp.JsonData().Get("balance").String())
	}))
	fmt.Println(client.IsConnectPeer(host.NodeID()), host.Peerstore().GetString(client.NodeID(), "last"))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
