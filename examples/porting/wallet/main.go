// The node of a wallet and a client of it, as programs for OpenWallet's package
// write them. With the program in the folder above it uses every name that such
// programs do, and its node goes on serving those that have not moved yet.
package main

import (
	"errors"
	"fmt"
	"log"

	"github.com/owtp-go/owtp"
)

func main() {
	host := serve()
	defer host.Close()
	config := owtp.ConnectConfig{Address: "127.0.0.1:9437", ConnectType: owtp.Websocket}
	check(host.Listen(owtp.ConnectConfig{Address: config.Address, ConnectType: owtp.Websocket, AllowV1: true}))
	fmt.Println("listening:", host.Listening(owtp.Websocket), host.NodeID() == host.Certificate().ID())

	client := owtp.NewNode(owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), TimeoutSEC: 10})
	defer client.Close()
	config.EnableKeyAgreement = true
	call(client, host, config)

	old := owtp.RandomOWTPNode() // one that speaks the old version
	defer old.Close()
	config.Version = 1
	call(old, host, config)

	host.CloseListener(owtp.Websocket)
	fmt.Println("listening:", host.Listening(owtp.Websocket))
}

// serve makes the wallet's node.
func serve() *owtp.OWTPNode {
	cert := owtp.NewRandomCertificate()
	private, public := cert.KeyPair()
	again, err := owtp.NewCertificate(private)
	check(err)
	fmt.Println("key:", len(public) > 0, again.ID() == cert.ID(), len(cert.PublicKeyBytes()), len(cert.PrivateKeyBytes()))

	host := owtp.NewNode(owtp.NodeConfig{Cert: cert, TimeoutSEC: 10})
	check(host.HandleFunc("login", func(ctx *owtp.Context) {
		check(ctx.SetSession("user", ctx.Params().Get("user").String()))
		ctx.Response(ctx.Peer.PID() == ctx.PID, owtp.StatusSuccess, ctx.Method)
	}))
	check(host.HandleFunc("logout", func(ctx *owtp.Context) {
		user := ctx.GetSession("user")
		check(ctx.DelSession("user"))
		check(ctx.DestroySession())
		ctx.Response(user, owtp.StatusSuccess, "bye")
	}))
	host.HandlePrepareFunc(func(ctx *owtp.Context) {
		if ctx.RemoteAddress == "" || ctx.Params().Get("user").String() == "eve" {
			ctx.ResponseStopRun(nil, owtp.ErrCustomError+1, "not for you")
		}
	})
	host.HandleFinishFunc(func(ctx *owtp.Context) {
		if ctx.Resp.Status != owtp.StatusSuccess {
			ctx.Resp.Msg += "!"
		}
	})
	return host
}

// call does what a client of the wallet does.
func call(client, host *owtp.OWTPNode, config owtp.ConnectConfig) {
	id := host.NodeID()
	client.SetOpenHandler(func(_ *owtp.OWTPNode, peer owtp.PeerInfo) {})
	client.SetCloseHandler(func(_ *owtp.OWTPNode, peer owtp.PeerInfo) {})
	client.SetReloadPeerInfoHandler(func(_ *owtp.OWTPNode, peer owtp.PeerInfo) owtp.PeerInfo { return peer })
	check(client.ConnectAndCall(id, config, "login", map[string]any{"user": "ada"}, true, func(resp owtp.Response) {
		fmt.Println(meaning(resp.Status), resp.Msg, resp.JsonData().Bool())
	}))
	for _, user := range []string{"eve", "ada"} {
		resp, err := client.CallSync(id, "logout", map[string]any{"user": user})
		check(err)
		fmt.Printf("%s, %s %q\n", meaning(resp.Status), resp.Msg, resp.JsonData().String())
	}
	_, err := client.CallSync("nobody", "login", nil)
	var failed *owtp.Error
	fmt.Println(meaning(owtp.StatusOf(err)), errors.As(err, &failed))

	peer := client.GetOnlinePeer(id)
	fmt.Println("peer:", len(client.OnlinePeers()), client.IsConnectPeer(id), peer.IsHost(), peer.IsConnected(), peer.EnableKeyAgreement(),
		peer.LocalAddr().String() != peer.RemoteAddr().String(), peer.ConnectConfig().ConnectType)
	client.ClosePeer(id)

	remember(client.Peerstore())
}

// remember keeps what it is told of a peer, but for passwords.
func remember(store owtp.Peerstore) {
	check(store.SavePeer(owtp.PeerInfo{ID: "bank", Config: owtp.ConnectConfig{
		Address: "amqps://mq.example", ConnectType: owtp.MQ, Account: "wallet", Password: "secret", Exchange: "amq.direct",
		WriteQueueName: "to-bank", ReadQueueName: "from-bank", EnableSSL: true, EnableSignature: true, EnableKeyAgreement: true, ReadBufferSize: 4096, WriteBufferSize: 4096,
	}}))
	bank := store.PeerInfo("bank")
	fmt.Println("bank:", bank.Config.WriteQueueName, bank.Config.Password == "")
	check(store.Put("bank", "calls", 7))
	fmt.Println(store.Get("bank", "calls"), store.GetString("bank", "calls") == "")
	check(store.Delete("bank", "calls"))
	check(store.Destroy("bank"))
}

// meaning is what a program makes of a status.
func meaning(status uint64) string {
	switch status {
	case owtp.StatusSuccess:
		return "done"
	case owtp.ErrBadRequest, owtp.ErrNotFoundMethod, owtp.ErrUnauthorized, owtp.ErrSecretKeyInvalid, owtp.ErrKeyAgreementFailed:
		return "refused"
	case owtp.ErrRequestTimeout, owtp.ErrNetworkDisconnected, owtp.ErrDenialOfService:
		return "not reached"
	case owtp.ErrReplayAttack, owtp.ErrInternalServerError, owtp.ErrResponseMethodDiffer:
		return "failed"
	}
	if status >= owtp.ErrCustomError {
		return fmt.Sprintf("the wallet says %d", status)
	}
	return fmt.Sprint(status)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
