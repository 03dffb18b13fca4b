package owtp_test

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/internal/testpb"
	"github.com/owtp-go/owtp/internal/teststubs"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// Clients and servers that protoc-gen-owtp has generated.

// A walletServer leaves OldBalance to what it embeds.
type walletServer struct {
	teststubs.UnimplementedWalletServer
	began  chan struct{}
	ended  chan error
	reads  atomic.Int64
	limits atomic.Int64
}

func newWalletServer() *walletServer {
	return &walletServer{began: make(chan struct{}, 10), ended: make(chan error, 10)}
}

func (w *walletServer) Balance(ctx context.Context, in *teststubs.BalanceRequest) (*teststubs.BalanceReply, error) {
	w.reads.Add(1)
	return &teststubs.BalanceReply{Amount: 1<<64 - 1, SeenBy: in.GetAccount() + " " + owtp.FromContext(ctx).PID}, nil
}

func (w *walletServer) Transfer(ctx context.Context, in *teststubs.TransferRequest) (*teststubs.TransferReply, error) {
	switch in.GetTo() {
	case "nobody":
		return nil, &owtp.Error{Status: 604, Msg: "no such account", Details: &testpb.Problem{Field: "to", Limit: 7}}
	case "":
		return nil, io.ErrUnexpectedEOF
	case "later":
		w.began <- struct{}{}
		<-ctx.Done()
		w.ended <- ctx.Err()
		return nil, ctx.Err()
	}
	w.reads.Add(1)
	return &teststubs.TransferReply{Id: in.GetTo()}, nil
}

func (w *walletServer) SetLimit(ctx context.Context, in *teststubs.SetLimitRequest) (*emptypb.Empty, error) {
	if in.Limit == nil {
		return nil, &owtp.Error{Status: owtp.ErrBadRequest, Msg: "no limit"}
	}
	w.limits.Store(in.GetLimit())
	return &emptypb.Empty{}, nil
}

func (w *walletServer) Buy(_ context.Context, in *testpb.Order) (*testpb.Receipt, error) {
	return &testpb.Receipt{Items: int64(len(in.GetItems()))}, nil
}

// Watch calls its caller.
func (w *walletServer) Watch(ctx context.Context, in *teststubs.WatchRequest) (*teststubs.WatchReply, error) {
	c := owtp.FromContext(ctx)
	caller := teststubs.NewListenerClient(c.Node(), c.PID)
	reply := new(teststubs.WatchReply)
	for reply.Told < in.GetEvents() {
		if _, err := caller.Moved(ctx, &teststubs.MovedEvent{Number: reply.Told}); err != nil {
			return nil, &owtp.Error{Status: 605, Msg: "the caller does not answer"}
		}
		reply.Told++
	}
	return reply, nil
}

type listenerServer struct {
	teststubs.UnimplementedListenerServer
	moved atomic.Int64
}

func (l *listenerServer) Moved(_ context.Context, in *teststubs.MovedEvent) (*emptypb.Empty, error) {
	if !l.moved.CompareAndSwap(int64(in.GetNumber()), int64(in.GetNumber())+1) {
		return nil, errors.New("out of order")
	}
	return nil, nil
}

func TestStubsOverEveryTransport(t *testing.T) {
	t.Parallel()
	eachWay(t, someWays(), func(t *testing.T, w way) {
		s := newStage(t, w)
		impl, listener := newWalletServer(), new(listenerServer)
		must(t, teststubs.RegisterWalletServer(s.host, impl))
		must(t, teststubs.RegisterListenerServer(s.client, listener))
		s.connect(t)
		useWallet(t, s, teststubs.NewWalletClient(s.client, "testhost"), impl, listener)
	})
}

func useWallet(t *testing.T, s *stage, wallet teststubs.WalletClient, impl *walletServer, listener *listenerServer) {
	ctx := background(t)
	b, err := wallet.Balance(ctx, &teststubs.BalanceRequest{Account: "Ada"})
	must(t, err)
	if b.Amount != 1<<64-1 || s.proved() && b.SeenBy != "Ada "+s.client.NodeID() {
		t.Errorf("balance %v", b)
	}
	if _, err := wallet.SetLimit(ctx, &teststubs.SetLimitRequest{Limit: new(int64)}); err != nil {
		t.Error(err)
	}
	wantStatus(t, second(wallet.SetLimit(ctx, nil)), owtp.ErrBadRequest) // nil is an empty message
	if r, err := wallet.Buy(ctx, &testpb.Order{Items: make([]*testpb.Item, 2)}); err != nil || r.GetItems() != 2 {
		t.Errorf("receipt %v, %v", r, err)
	}

	// Errors are what the server says, and nothing that it does not say.
	e := wantStatus(t, second(wallet.Transfer(ctx, &teststubs.TransferRequest{To: "nobody"})), 604)
	var problem testpb.Problem
	if err := e.DecodeDetails(&problem); err != nil || e.Msg != "no such account" || e.Method != teststubs.Wallet_Transfer_FullMethodName || e.PeerID != "testhost" || problem.GetLimit() != 7 {
		t.Errorf("error %+v with %v, %v", e, &problem, err)
	}
	if e := wantStatus(t, second(wallet.Transfer(ctx, &teststubs.TransferRequest{})), owtp.ErrInternalServerError); e.Msg == io.ErrUnexpectedEOF.Error() {
		t.Errorf("the caller is told %q", e.Msg)
	}
	wantStatus(t, second(wallet.OldBalance(ctx, &teststubs.BalanceRequest{})), owtp.ErrNotFoundMethod)
	wantStatus(t, second(teststubs.NewWalletClient(s.client, "stranger").Balance(ctx, nil)), owtp.ErrNetworkDisconnected)

	// The context reaches the handler, with its deadline and its end.
	short, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- second(wallet.Transfer(short, &teststubs.TransferRequest{To: "later"})) }()
	within(t, impl.began, "the handler")
	cancel()
	wantStatus(t, within(t, done, "the call"), owtp.ErrRequestTimeout)
	if s.proved() || !s.exchanges() {
		within(t, impl.ended, "the handler's end")
	}
	wantStatus(t, second(wallet.Transfer(ctx, &teststubs.TransferRequest{To: "later"}, &owtp.CallOptions{Timeout: 50 * time.Millisecond})), owtp.ErrRequestTimeout)
	two := []*owtp.CallOptions{nil, {}}
	wantStatus(t, second(wallet.Transfer(ctx, nil, two...)), owtp.ErrBadRequest)
	wantStatus(t, second(wallet.Balance(ctx, nil, two...)), owtp.ErrBadRequest)

	// And the other way round.
	watched, err := wallet.Watch(ctx, &teststubs.WatchRequest{Events: 3})
	if !s.callsBack() {
		wantStatus(t, err, 605)
		return
	}
	if err != nil || watched.GetTold() != 3 || listener.moved.Load() != 3 {
		t.Errorf("told %v, %v; %d have come", watched, err, listener.moved.Load())
	}
}

func second[T any](_ T, err error) error { return err }

// What a .proto says to be repeatable is sent again when its answer is lost, and
// nothing else is.
func TestStubsRepeatWhatIsRepeatable(t *testing.T) {
	each(t, longMedia, []guard{inSigned}, func(t *testing.T, m medium, g guard) {
		r := retryRig(t, m, g, owtp.NodeConfig{})
		impl := newWalletServer()
		must(t, teststubs.RegisterWalletServer(r.bank.OWTPNode, impl))
		wallet := teststubs.NewWalletClient(r.client, "bank")
		given := &owtp.CallOptions{Timeout: patience}

		r.losing(transporttest.ToClient, 1)
		if b, err := wallet.Balance(background(t), &teststubs.BalanceRequest{}, given); err != nil || impl.reads.Load() != 2 {
			t.Errorf("balance %v, %v after %d runs", b, err, impl.reads.Load())
		}
		r.losing(transporttest.ToClient, 1)
		if _, err := wallet.Balance(background(t), &teststubs.BalanceRequest{}); err != nil || impl.reads.Load() != 4 {
			t.Errorf("without options: %v after %d runs", err, impl.reads.Load())
		}
		if given.Repeatable {
			t.Error("the caller's options were changed")
		}
		r.losing(transporttest.ToClient, 1)
		if e := wantStatus(t, second(wallet.Transfer(background(t), &teststubs.TransferRequest{To: "a"}, given)), owtp.ErrNetworkDisconnected); !e.MayHaveRun || impl.reads.Load() != 5 {
			t.Errorf("transfer: %+v after %d runs", e, impl.reads.Load()-4)
		}
	})
}

type nilEmbedded struct {
	*teststubs.UnimplementedWalletServer
}

func TestStubsRegistration(t *testing.T) {
	t.Parallel()
	n := randomNode(t)
	wantErr(t, teststubs.RegisterWalletServer(n, nil), "RegisterWalletServer", "nil")
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a nil pointer is embedded and nobody minds")
			}
		}()
		teststubs.RegisterWalletServer(n, nilEmbedded{})
	}()
	must(t, teststubs.RegisterWalletServer(n, teststubs.UnimplementedWalletServer{}))
	wantErr(t, teststubs.RegisterWalletServer(n, newWalletServer()), "wallet.test.Wallet/Balance", "has a handler already")
	must(t, teststubs.RegisterListenerServer(n, &listenerServer{}))
	must(t, teststubs.RegisterNothingServer(n, teststubs.UnimplementedNothingServer{}))
	wantErr(t, teststubs.RegisterWalletServer(owtp.NewNode(owtp.NodeConfig{}), newWalletServer()), "certificate")
	wantErr(t, second(teststubs.NewWalletClient(owtp.NewNode(owtp.NodeConfig{}), "x").Balance(background(t), nil)), "certificate")
}
