// Command usage holds the longer samples of the README, in the order in which
// they stand there, and runs them.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/session"
)

func createNode() (*owtp.OWTPNode, error) {
	// A node is a key pair. Keep the private key: it is the node's name.
	cert, err := owtp.NewCertificate(owtp.RandomPrivateKey())
	if err != nil {
		return nil, err
	}
	host, err := owtp.New(owtp.NodeConfig{
		Cert:       cert, // who the node is
		TimeoutSEC: 60,   // how long a call waits
	})
	if err != nil {
		return nil, err
	}
	return host, nil
}

func useSessions(host *owtp.OWTPNode) (*owtp.SessionManager, error) {
	globalSessions, err := owtp.NewSessionManager("memory", &session.ManagerConfig{
		Gclifetime: 10, // seconds between two sweeps
	})
	if err != nil {
		return nil, err
	}
	go globalSessions.GC() // ends with globalSessions.Close()

	// Before Listen and Connect.
	if err := host.SetPeerstore(globalSessions); err != nil {
		return nil, err
	}
	return globalSessions, nil
}

// getInfo is a method: it does not know over what it is called.
func getInfo(ctx *owtp.Context) {
	// Kept for this peer until its session expires.
	if err := ctx.SetSession("username", "kkk"); err != nil {
		ctx.Response(nil, owtp.ErrInternalServerError, "no session")
		return
	}
	ctx.Resp = owtp.Response{
		Status: 0,
		Msg:    "success",
		Result: map[string]any{"getInfo": "hi boy"},
	}
}

func serve(host *owtp.OWTPNode) error {
	if err := host.HandleFunc("getInfo", getInfo); err != nil {
		return err
	}

	// Before every handler; ctx.ResponseStopRun keeps the handler from running.
	host.HandlePrepareFunc(func(ctx *owtp.Context) {
		ctx.Values = map[string]any{"began": time.Now()}
	})
	// After every handler, also one that failed.
	host.HandleFinishFunc(func(ctx *owtp.Context) {
		log.Printf("%s by %s over %s: %d", ctx.Method, ctx.PID, ctx.Transport(), ctx.Resp.Status)
	})

	// HTTP: refuse what is not signed.
	err := host.Listen(owtp.ConnectConfig{
		Address:         "127.0.0.1:9432",
		ConnectType:     owtp.HTTP,
		EnableSignature: true,
	})
	if err != nil {
		return err
	}
	// WebSocket: refuse what is not sealed.
	err = host.Listen(owtp.ConnectConfig{
		Address:            "127.0.0.1:9433",
		ConnectType:        owtp.Websocket,
		EnableKeyAgreement: true,
	})
	if err != nil {
		return err
	}

	// Long connections only; HTTP has none.
	host.SetOpenHandler(func(n *owtp.OWTPNode, peer owtp.PeerInfo) {
		log.Printf("peer %s connected", peer.ID)
	})
	host.SetCloseHandler(func(n *owtp.OWTPNode, peer owtp.PeerInfo) {
		log.Printf("peer %s disconnected", peer.ID)
	})
	return nil
}

func call(client *owtp.OWTPNode) error {
	err := client.Connect("testhost", owtp.ConnectConfig{
		Address:         ":9432", // no host: localhost
		ConnectType:     owtp.HTTP,
		EnableSignature: true,
	})
	if err != nil {
		return err
	}

	// Seal everything from here on: "aes" (hybrid post-quantum) or "sm4".
	if err := client.KeyAgreement("testhost", "aes"); err != nil {
		return err
	}

	params := map[string]any{"name": "chance", "age": 18}

	// true: Call returns after the function has run. A non-nil error means that
	// nothing was sent; after nil the function runs exactly once.
	return client.Call("testhost", "getInfo", params, true, func(resp owtp.Response) {
		if !resp.OK() {
			log.Printf("status %d: %s", resp.Status, resp.Msg)
			return
		}
		fmt.Printf("getInfo: %v\n", resp.JsonData().Get("getInfo"))
	})
}

func callContext(client *owtp.OWTPNode, serverID string) error {
	err := client.Connect(serverID, owtp.ConnectConfig{
		Address:            ":9433",
		ConnectType:        owtp.Websocket,
		EnableKeyAgreement: true,
	})
	if errors.Is(err, owtp.ErrTrust) {
		return fmt.Errorf("somebody else answers: %w", err)
	}
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	resp, err := client.CallContext(ctx, serverID, "getInfo", nil, &owtp.CallOptions{
		Meta: map[string]string{"request": "42"},
	})
	var e *owtp.Error
	if errors.As(err, &e) && e.MayHaveRun {
		return fmt.Errorf("sent, but nobody knows whether it ran: %w", err)
	}
	if err != nil {
		return err // it has not run
	}
	fmt.Printf("getInfo again: %v\n", resp.JsonData().Get("getInfo"))
	return nil
}

func checkEvidence(client *owtp.OWTPNode) error {
	resp, err := client.CallSync("testhost", "getInfo", nil)
	if err != nil {
		return err
	}
	// Save these bytes: they verify offline, by anybody, for ever.
	evidence, err := owtp.VerifyEvidence(resp.Evidence())
	if err != nil {
		return err
	}
	fmt.Println("signed by the server:", evidence.Response.Method, evidence.Response.Status)
	return nil
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	host, err := createNode()
	if err != nil {
		return err
	}
	defer host.Close()
	globalSessions, err := useSessions(host)
	if err != nil {
		return err
	}
	defer globalSessions.Close()
	if err := serve(host); err != nil {
		return err
	}
	client := owtp.RandomOWTPNode()
	defer client.Close()
	if err := call(client); err != nil {
		return err
	}
	if err := checkEvidence(client); err != nil {
		return err
	}
	other := owtp.RandomOWTPNode()
	defer other.Close()
	return callContext(other, host.NodeID())
}
