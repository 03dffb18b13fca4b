// Command embed mounts a node in an existing HTTP server, beside other pages.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/owtp-go/owtp"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func newMux(node *owtp.OWTPNode) (http.Handler, error) {
	calls, err := node.HTTPHandler(owtp.ConnectConfig{})
	if err != nil {
		return nil, err
	}
	connections, err := node.WebsocketHandler(owtp.ConnectConfig{EnableKeyAgreement: true})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("POST /{$}", calls) // nodes call the root
	mux.Handle("GET /{$}", connections)
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	return mux, nil
}

func run() error {
	node := owtp.RandomOWTPNode()
	defer node.Close()
	err := node.HandleFunc("ping", func(ctx *owtp.Context) {
		ctx.Response("pong", owtp.StatusSuccess, "success")
	})
	if err != nil {
		return err
	}
	mux, err := newMux(node)
	if err != nil {
		return err
	}
	server := httptest.NewServer(mux)
	defer server.Close()

	// Another node, and a page beside it.
	client := owtp.RandomOWTPNode()
	defer client.Close()
	address := server.Listener.Addr().(*net.TCPAddr).String()
	err = client.Connect("embedded", owtp.ConnectConfig{Address: address, ConnectType: owtp.HTTP})
	if err != nil {
		return err
	}
	resp, err := client.CallSync("embedded", "ping", nil)
	if err != nil {
		return err
	}
	fmt.Println("ping:", resp.JsonData())

	// An open call is plain JSON, so that any tool can make it.
	body := `{"v":2,"r":1,"m":"ping","n":"AAAAAAAAAAAAAAAAAAAAAQ==","d":null}`
	plain, err := http.Post(server.URL, "application/owtp+json", strings.NewReader(body))
	if err != nil {
		return err
	}
	defer plain.Body.Close()
	text, err := io.ReadAll(plain.Body)
	if err != nil {
		return err
	}
	fmt.Println(plain.StatusCode, string(text))
	return nil
}
