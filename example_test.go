package owtp_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/session"
)

// check keeps the examples short; programs handle their errors.
func check(err error) {
	if err != nil {
		panic(err)
	}
}

// One handler, called over a WebSocket.
func Example() {
	host, client := owtp.RandomOWTPNode(), owtp.RandomOWTPNode()
	defer host.Close()
	defer client.Close()

	check(host.HandleFunc("greet", func(ctx *owtp.Context) {
		name := ctx.Params().Get("name").String()
		ctx.Response(map[string]string{"text": "hello " + name}, owtp.StatusSuccess, "")
	}))
	check(host.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.Websocket}))

	addr := host.ListenerAddr(owtp.Websocket)
	check(client.Connect("testhost", owtp.ConnectConfig{Address: addr, ConnectType: owtp.Websocket}))
	check(client.Call("testhost", "greet", map[string]string{"name": "Ada"}, true, func(resp owtp.Response) {
		fmt.Println(resp.JsonData().Get("text"))
	}))
	// Output: hello Ada
}

// Over HTTP in signed mode both sides prove who they are with every message.
func ExampleOWTPNode_Connect_signed() {
	cert, err := owtp.NewCertificate(owtp.RandomPrivateKey()) // a stored key, usually
	check(err)
	client := owtp.NewNode(owtp.NodeConfig{Cert: cert, TimeoutSEC: 10})
	defer client.Close()
	host := owtp.RandomOWTPNode()
	defer host.Close()

	check(host.HandleFunc("whoami", func(ctx *owtp.Context) {
		ctx.Response(ctx.PID, owtp.StatusSuccess, "")
	}))
	check(host.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.HTTP, EnableSignature: true}))

	check(client.Connect("testhost", owtp.ConnectConfig{
		Address:         host.ListenerAddr(owtp.HTTP),
		ConnectType:     owtp.HTTP,
		EnableSignature: true,
		PeerID:          host.NodeID(), // nobody else may answer
	}))
	resp, err := client.CallSync("testhost", "whoami", nil)
	check(err)
	fmt.Println(resp.JsonData().String() == client.NodeID())
	// Output: true
}

// After KeyAgreement nobody on the way reads what passes.
func ExampleOWTPNode_KeyAgreement() {
	host, client := owtp.RandomOWTPNode(), owtp.RandomOWTPNode()
	defer host.Close()
	defer client.Close()
	check(host.HandleFunc("sealed", func(ctx *owtp.Context) {
		ctx.Response(ctx.Peer.EnableKeyAgreement(), owtp.StatusSuccess, "")
	}))
	check(host.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.HTTP}))

	check(client.Connect("testhost", owtp.ConnectConfig{Address: host.ListenerAddr(owtp.HTTP), ConnectType: owtp.HTTP}))
	check(client.KeyAgreement("testhost", "aes"))
	resp, err := client.CallSync("testhost", "sealed", nil)
	check(err)
	fmt.Println(resp.JsonData())
	// Output: true
}

// A server calls back over the connection that the client made.
func ExampleOWTPNode_Call_back() {
	host, client := owtp.RandomOWTPNode(), owtp.RandomOWTPNode()
	defer host.Close()
	defer client.Close()
	check(client.HandleFunc("confirm", func(ctx *owtp.Context) {
		ctx.Response("yes, "+ctx.Params().String(), owtp.StatusSuccess, "")
	}))
	check(host.HandleFunc("order", func(ctx *owtp.Context) {
		resp, err := ctx.Node().CallContext(ctx.Context(), ctx.PID, "confirm", "two apples", nil)
		if err != nil {
			ctx.Response(nil, owtp.StatusOf(err), "no confirmation")
			return
		}
		ctx.Response(resp.Result, owtp.StatusSuccess, "")
	}))
	check(host.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.Websocket}))

	check(client.Connect("testhost", owtp.ConnectConfig{Address: host.ListenerAddr(owtp.Websocket), ConnectType: owtp.Websocket}))
	resp, err := client.CallSync("testhost", "order", nil)
	check(err)
	fmt.Println(resp.JsonData())
	// Output: yes, two apples
}

// A signed answer proves, offline and to anybody, who said what.
func ExampleVerifyEvidence() {
	host, client := owtp.RandomOWTPNode(), owtp.RandomOWTPNode()
	defer host.Close()
	defer client.Close()
	check(host.HandleFunc("quote", func(ctx *owtp.Context) { ctx.Response(42, owtp.StatusSuccess, "") }))
	check(host.Listen(owtp.ConnectConfig{Address: "quotes", ConnectType: owtp.Memory, EnableSignature: true}))
	check(client.Connect("testhost", owtp.ConnectConfig{Address: "quotes", ConnectType: owtp.Memory, EnableSignature: true}))
	resp, err := client.CallSync("testhost", "quote", nil)
	check(err)

	saved := resp.Evidence()
	e, err := owtp.VerifyEvidence(saved)
	check(err)
	fmt.Println(e.Response.SignerID == host.NodeID(), e.Response.Method, string(e.Response.Data))

	saved[len(saved)-80] ^= 1
	_, err = owtp.VerifyEvidence(saved)
	fmt.Println(err != nil)
	// Output:
	// true quote 42
	// true
}

// Middleware runs around every handler, on every transport.
func ExampleOWTPNode_Use() {
	host, client := owtp.RandomOWTPNode(), owtp.RandomOWTPNode()
	defer host.Close()
	defer client.Close()
	host.Use(func(next owtp.HandlerFunc) owtp.HandlerFunc {
		return func(ctx *owtp.Context) {
			if ctx.Meta("tenant") == "" {
				ctx.ResponseStopRun(nil, owtp.ErrCustomError, "which tenant?")
				return
			}
			next(ctx)
		}
	})
	check(host.HandleFunc("list", func(ctx *owtp.Context) { ctx.Response("of "+ctx.Meta("tenant"), owtp.StatusSuccess, "") }))
	check(host.Listen(owtp.ConnectConfig{Address: "tenants", ConnectType: owtp.Memory}))
	check(client.Connect("testhost", owtp.ConnectConfig{Address: "tenants", ConnectType: owtp.Memory}))

	for _, tenant := range []string{"", "acme"} {
		resp, err := client.CallContext(context.Background(), "testhost", "list", nil, &owtp.CallOptions{Meta: map[string]string{"tenant": tenant}})
		check(err)
		fmt.Println(resp.Status, resp.Msg, resp.JsonData().Raw)
	}
	// Output:
	// 600 which tenant? null
	// 200  "of acme"
}

// What a handler keeps of a proved peer is there again when the peer comes back,
// over whatever transport.
func ExampleContext_SetSession() {
	sessions, err := owtp.NewSessionManager("memory", &session.ManagerConfig{Gclifetime: 10})
	check(err)
	defer sessions.Close()
	go sessions.GC()

	host, client := owtp.RandomOWTPNode(), owtp.RandomOWTPNode()
	defer host.Close()
	defer client.Close()
	check(host.SetPeerstore(sessions))
	check(host.HandleFunc("login", func(ctx *owtp.Context) {
		if err := ctx.SetSession("username", ctx.Params().String()); err != nil {
			ctx.Response(nil, owtp.ErrInternalServerError, "cannot remember you")
		}
	}))
	check(host.HandleFunc("whoami", func(ctx *owtp.Context) { ctx.Response(ctx.GetSession("username"), owtp.StatusSuccess, "") }))
	for _, connect := range []string{owtp.HTTP, owtp.Websocket} {
		check(host.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: connect, EnableSignature: true}))
		check(client.Connect(connect, owtp.ConnectConfig{Address: host.ListenerAddr(connect), ConnectType: connect, EnableSignature: true}))
	}

	_, err = client.CallSync(owtp.HTTP, "login", "ada")
	check(err)
	resp, err := client.CallSync(owtp.Websocket, "whoami", nil)
	check(err)
	fmt.Println(resp.JsonData())
	// Output: ada
}

// A node's face is an http.Handler and stands beside other routes.
func ExampleOWTPNode_HTTPHandler() {
	host, client := owtp.RandomOWTPNode(), owtp.RandomOWTPNode()
	defer host.Close()
	defer client.Close()
	check(host.HandleFunc("ping", func(ctx *owtp.Context) { ctx.Response("pong", owtp.StatusSuccess, "") }))

	face, err := host.HTTPHandler(owtp.ConnectConfig{})
	check(err)
	mux := http.NewServeMux()
	mux.Handle("/", face)
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "fine") })
	server := httptest.NewServer(mux)
	defer server.Close()

	check(client.Connect("testhost", owtp.ConnectConfig{Address: strings.TrimPrefix(server.URL, "http://"), ConnectType: owtp.HTTP}))
	resp, err := client.CallSync("testhost", "ping", nil)
	check(err)
	fmt.Println(resp.JsonData())
	// Output: pong
}
