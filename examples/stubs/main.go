// Command stubs calls with what protoc-gen-owtp has generated from
// walletpb/wallet.proto: a wallet that has clients, and that calls its clients
// back.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/examples/stubs/walletpb"
)

const shortOfMoney = owtp.ErrCustomError + 1

// wallet implements the service Wallet.
type wallet struct {
	walletpb.UnimplementedWalletServer // answers 404 for what is not here

	mu       sync.Mutex
	accounts map[string]uint64
}

func (w *wallet) Balance(_ context.Context, in *walletpb.BalanceRequest) (*walletpb.BalanceReply, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &walletpb.BalanceReply{Amount: w.accounts[in.GetAccount()]}, nil
}

func (w *wallet) Transfer(ctx context.Context, in *walletpb.TransferRequest) (*walletpb.TransferReply, error) {
	left, err := w.move(in)
	if err != nil {
		return nil, err
	}
	// Who calls is a peer to call, over the same connection.
	caller := owtp.FromContext(ctx)
	watcher := walletpb.NewWatcherClient(caller.Node(), caller.PID)
	if _, err := watcher.Moved(ctx, &walletpb.MovedRequest{To: in.GetTo(), Amount: in.GetAmount()}); err != nil {
		log.Printf("%s was not told: %v", caller.PID, err)
	}
	return &walletpb.TransferReply{Left: left}, nil
}

func (w *wallet) move(in *walletpb.TransferRequest) (left uint64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	has := w.accounts[in.GetFrom()]
	if has < in.GetAmount() {
		// Status, message and details are what the caller gets.
		return 0, &owtp.Error{
			Status: shortOfMoney, Msg: "not enough money",
			Details: &walletpb.Shortage{Missing: in.GetAmount() - has},
		}
	}
	w.accounts[in.GetFrom()] -= in.GetAmount()
	w.accounts[in.GetTo()] += in.GetAmount()
	return w.accounts[in.GetFrom()], nil
}

// watcher is the client's side of the service Watcher.
type watcher struct {
	walletpb.UnimplementedWatcherServer
}

func (watcher) Moved(_ context.Context, in *walletpb.MovedRequest) (*walletpb.MovedReply, error) {
	fmt.Println("moved", in.GetAmount(), "to", in.GetTo())
	return &walletpb.MovedReply{}, nil
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	server := owtp.RandomOWTPNode()
	defer server.Close()
	if err := serve(server); err != nil {
		return err
	}
	client := owtp.RandomOWTPNode()
	defer client.Close()
	if err := connect(client, server); err != nil {
		return err
	}
	return use(ctx, client, server.NodeID())
}

func serve(node *owtp.OWTPNode) error {
	err := walletpb.RegisterWalletServer(node, &wallet{accounts: map[string]uint64{"ada": 100}})
	if err != nil {
		return err
	}
	return node.Listen(owtp.ConnectConfig{
		Address: "127.0.0.1:0", ConnectType: owtp.Websocket, EnableKeyAgreement: true, DataFormat: "protobuf",
	})
}

func connect(client, server *owtp.OWTPNode) error {
	if err := walletpb.RegisterWatcherServer(client, watcher{}); err != nil {
		return err
	}
	return client.Connect(server.NodeID(), owtp.ConnectConfig{
		Address: server.ListenerAddr(owtp.Websocket), ConnectType: owtp.Websocket, EnableKeyAgreement: true,
		DataFormat: "protobuf", // or "json": the stubs are the same
	})
}

func use(ctx context.Context, client *owtp.OWTPNode, pid string) error {
	bank := walletpb.NewWalletClient(client, pid)
	balance, err := bank.Balance(ctx, &walletpb.BalanceRequest{Account: "ada"})
	if err != nil {
		return err
	}
	fmt.Println("balance", balance.GetAmount())

	reply, err := bank.Transfer(ctx, &walletpb.TransferRequest{From: "ada", To: "bob", Amount: 60})
	if err != nil {
		return err
	}
	fmt.Println("left", reply.GetLeft())

	_, err = bank.Transfer(ctx, &walletpb.TransferRequest{From: "ada", To: "bob", Amount: 60})
	var e *owtp.Error
	var shortage walletpb.Shortage
	if errors.As(err, &e) && e.Status == shortOfMoney && e.DecodeDetails(&shortage) == nil {
		fmt.Println(e.Msg, "missing", shortage.GetMissing())
	}

	_, err = bank.Close(ctx, &walletpb.CloseRequest{})
	fmt.Println("close", owtp.StatusOf(err))
	return nil
}
