package main

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/internal/testpb"
	"github.com/owtp-go/owtp/internal/teststubs"
)

// A wallet is a node with services that were generated from a .proto file.
type wallet struct {
	teststubs.UnimplementedWalletServer
}

func (wallet) Balance(_ context.Context, in *teststubs.BalanceRequest) (*teststubs.BalanceReply, error) {
	return &teststubs.BalanceReply{Amount: 1<<64 - 1, SeenBy: in.GetAccount()}, nil
}

func (wallet) Transfer(ctx context.Context, in *teststubs.TransferRequest) (*teststubs.TransferReply, error) {
	if in.GetTo() == "" {
		return nil, &owtp.Error{Status: 604, Msg: "no such account", Details: &testpb.Problem{Field: "to", Limit: 1<<64 - 1}}
	}
	return &teststubs.TransferReply{Id: owtp.FromContext(ctx).DataFormat()}, nil
}

// walletKinds change what a wallet says of itself.
var walletKinds = map[string]func(*owtp.OWTPNode){
	"plain":  func(*owtp.OWTPNode) {},
	"silent": func(*owtp.OWTPNode) {}, // it was not asked to
	// It never comes to an end, and paints the terminal red.
	"endless": func(n *owtp.OWTPNode) {
		var asked atomic.Int64
		says(n, func() any {
			return map[string]any{"methods": []any{map[string]any{"name": fmt.Sprintf("\x1b[31m%07d", asked.Add(1))}}, "more": true}
		})
	},
	"stuck": func(n *owtp.OWTPNode) {
		says(n, func() any { return map[string]any{"methods": []any{map[string]any{"name": "again"}}, "more": true} })
	},
	"huge": func(n *owtp.OWTPNode) {
		var asked atomic.Int64
		says(n, func() any {
			name := fmt.Sprintf("%07d", asked.Add(1))
			return map[string]any{"methods": []any{map[string]any{"name": name + string(make([]byte, 400_000))}}, "more": true}
		})
	},
	"garbage": func(n *owtp.OWTPNode) {
		says(n, func() any { return map[string]any{"files": []any{[]byte("garbage")}} })
	},
	"torn": func(n *owtp.OWTPNode) { // a file that imports what is not there
		says(n, func() any { return map[string]any{"files": []any{[]byte("\x0a\x01a\x1a\x01b")}} })
	},
	"shapeless": func(n *owtp.OWTPNode) {
		says(n, func() any { return map[string]any{"methods": "all of them"} })
	},
}

// says answers everything like that.
func says(n *owtp.OWTPNode, what func() any) {
	n.HandlePrepareFunc(func(ctx *owtp.Context) { ctx.ResponseStopRun(what(), owtp.StatusSuccess, "") })
}

func cmdWallet(ts *testscript.TestScript, neg bool, args []string) {
	kind := "plain"
	if len(args) == 2 {
		kind = args[1]
	}
	change := walletKinds[kind]
	if neg || len(args) < 1 || len(args) > 2 || change == nil {
		ts.Fatalf("usage: wallet NAME [KIND]")
	}
	node, err := owtp.New(owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Describe: kind != "silent"})
	ts.Check(err)
	ts.Defer(func() { node.Close() })
	change(node)
	ts.Check(teststubs.RegisterWalletServer(node, wallet{}))
	ts.Check(node.HandleFunc("plain", serveEcho))
	for _, connect := range []string{owtp.HTTP, owtp.Websocket} {
		ts.Check(node.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: connect}))
		ts.Setenv(args[0]+"_"+strings.ToUpper(connect), connect+"://"+node.ListenerAddr(connect))
	}
}
