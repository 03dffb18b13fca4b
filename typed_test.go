package owtp_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/codec"
	"github.com/owtp-go/owtp/internal/testpb"
)

// Typed handlers and calls.

type transfer struct {
	To     string   `json:"to"`
	Amount uint64   `json:"amount"`
	Notes  []string `json:"notes,omitempty"`
}

type balance struct {
	Left uint64 `json:"left"`
	By   string `json:"by"`
}

type shortage struct {
	Missing uint64 `json:"missing"`
	Account string `json:"account"`
}

var formats = []string{codec.NameJSON, codec.NameProtobuf}

// inFormats runs f with calls in each format over a connection in memory.
func inFormats(t *testing.T, f func(t *testing.T, s *stage, opts *owtp.CallOptions)) {
	t.Parallel()
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			s := newStage(t, way{connect: owtp.Memory})
			s.connect(t)
			f(t, s, &owtp.CallOptions{Format: format})
		})
	}
}

func TestTypedCallsCarryStructsAndMessages(t *testing.T) {
	inFormats(t, func(t *testing.T, s *stage, opts *owtp.CallOptions) {
		const big = 1<<64 - 1
		must(t, owtp.Handle(s.host, "transfer", func(ctx context.Context, in transfer) (balance, error) {
			c := owtp.FromContext(ctx)
			if c == nil || c.Method != "transfer" || c.DataFormat() != opts.Format || len(in.Notes) != 2 {
				return balance{}, fmt.Errorf("request %v with %v", c, in)
			}
			return balance{Left: in.Amount, By: in.To}, nil
		}))
		got, err := owtp.Invoke[balance](background(t), s.client, "testhost", "transfer", transfer{To: "Ada", Amount: big, Notes: []string{"a", ""}}, opts)
		if want := (balance{big, "Ada"}); err != nil || got != want {
			t.Errorf("got %v, %v; want %v", got, err, want)
		}

		must(t, owtp.Handle(s.host, "order", func(_ context.Context, in *testpb.Order) (*testpb.Receipt, error) {
			return &testpb.Receipt{Items: int64(len(in.Items)), Total: in.GetCustomer(), Lines: in.Items}, nil
		}))
		order := &testpb.Order{Customer: "Bo", Items: []*testpb.Item{{Id: 1 << 62, Name: "x"}}}
		receipt, err := owtp.Invoke[*testpb.Receipt](background(t), s.client, "testhost", "order", order, opts)
		if err != nil || receipt.GetItems() != 1 || receipt.GetTotal() != "Bo" || receipt.Lines[0].GetId() != 1<<62 {
			t.Errorf("got %v, %v", receipt, err)
		}
		// Nobody needs the generated code for a message in the other place.
		receipt, err = owtp.Invoke[*testpb.Receipt](background(t), s.client, "testhost", "order", map[string]any{"customer": "Cy"}, opts)
		if err != nil || receipt.GetTotal() != "Cy" {
			t.Errorf("got %v, %v", receipt, err)
		}
		untyped, err := s.client.CallContext(background(t), "testhost", "order", order, opts)
		must(t, err)
		if got := untyped.JsonData().Get("lines.0.name").String(); got != "x" {
			t.Errorf("read %q by path from %v", got, untyped)
		}
	})
}

func TestTypedHandlersWithoutParameters(t *testing.T) {
	inFormats(t, func(t *testing.T, s *stage, opts *owtp.CallOptions) {
		must(t, owtp.Handle(s.host, "pointer", func(_ context.Context, in *transfer) (*balance, error) {
			return nil, in.check()
		}))
		must(t, owtp.Handle(s.host, "message", func(_ context.Context, in *testpb.Order) (*testpb.Receipt, error) {
			return nil, nil
		}))
		b, err := owtp.Invoke[*balance](background(t), s.client, "testhost", "pointer", nil, opts)
		if b != nil || err != nil {
			t.Errorf("got %v, %v", b, err)
		}
		r, err := owtp.Invoke[*testpb.Receipt](background(t), s.client, "testhost", "message", nil, opts)
		if r.GetItems() != 0 || err != nil {
			t.Errorf("got %v, %v", r, err)
		}
	})
}

func (in *transfer) check() error {
	if in.To != "" {
		return fmt.Errorf("to %q", in.To)
	}
	return nil
}

func TestTypedHandlersNameTheFieldThatDoesNotFit(t *testing.T) {
	inFormats(t, func(t *testing.T, s *stage, opts *owtp.CallOptions) {
		ran := false
		must(t, owtp.Handle(s.host, "transfer", func(context.Context, transfer) (balance, error) {
			ran = true
			return balance{}, nil
		}))
		must(t, owtp.Handle(s.host, "order", func(context.Context, *testpb.Order) (balance, error) {
			ran = true
			return balance{}, nil
		}))
		for _, c := range []struct {
			method string
			in     any
			field  string
		}{
			{"transfer", map[string]any{"amount": -1}, "amount"},
			{"transfer", map[string]any{"amount": "12"}, "amount"},
			{"transfer", map[string]any{"to": 7}, "to"},
			{"transfer", map[string]any{"notes": []any{"a", 2}}, "notes"},
			{"transfer", map[string]any{"AMOUNT": 1000, "amount": 1}, "AMOUNT"}, // who reads by path sees 1
			{"transfer", []int{1}, ""},
			{"order", map[string]any{"items": []any{map[string]any{"id": "x"}}}, "id"},
		} {
			_, err := owtp.Invoke[balance](background(t), s.client, "testhost", c.method, c.in, opts)
			e := wantStatus(t, err, owtp.ErrBadRequest)
			if !strings.Contains(e.Msg, c.field) || e.Method != c.method {
				t.Errorf("%v: error %v does not name field %q", c.in, err, c.field)
			}
		}
		if ran {
			t.Error("a handler ran")
		}
		_, err := s.client.CallContext(background(t), "testhost", "transfer", transfer{}, opts)
		must(t, err)
		if !ran {
			t.Error("the handler does not run at all")
		}
	})
}

func TestTypedHandlersErrorsReachTheCaller(t *testing.T) {
	inFormats(t, func(t *testing.T, s *stage, opts *owtp.CallOptions) {
		must(t, owtp.Handle(s.host, "poor", func(_ context.Context, in transfer) (balance, error) {
			return balance{}, fmt.Errorf("transfer %d: %w", in.Amount, &owtp.Error{Status: 601, Msg: "too little", Details: shortage{1<<64 - 1, in.To}})
		}))
		_, err := owtp.Invoke[balance](background(t), s.client, "testhost", "poor", transfer{To: "Ada"}, opts)
		e := wantStatus(t, err, 601)
		var d shortage
		must(t, e.DecodeDetails(&d))
		if want := (shortage{1<<64 - 1, "Ada"}); e.Msg != "too little" || d != want || !e.MayHaveRun || e.PeerID != "testhost" {
			t.Errorf("got %+v with %v", e, d)
		}

		must(t, owtp.Handle(s.host, "refuse", func(context.Context, any) (any, error) {
			return nil, &owtp.Error{Status: 602, Details: &testpb.Problem{Field: "to", Limit: 1<<64 - 1}}
		}))
		_, err = owtp.Invoke[balance](background(t), s.client, "testhost", "refuse", nil, opts)
		p := new(testpb.Problem)
		must(t, wantStatus(t, err, 602).DecodeDetails(p))
		if p.Field != "to" || p.Limit != 1<<64-1 {
			t.Errorf("details %v", p)
		}

		must(t, owtp.Handle(s.host, "plain", func(context.Context, any) (any, error) { return nil, &owtp.Error{Status: 603} }))
		_, err = owtp.Invoke[any](background(t), s.client, "testhost", "plain", nil, opts)
		wantErr(t, wantStatus(t, err, 603).DecodeDetails(p), "no details")
	})
}

// What a program did not say to its callers they do not hear: neither what went
// wrong inside of it, nor where else it calls.
func TestTypedHandlersOtherErrorsTellNothing(t *testing.T) {
	inFormats(t, func(t *testing.T, s *stage, opts *owtp.CallOptions) {
		secret := errors.New("password hunter2")
		nested := func() error {
			_, err := owtp.Invoke[any](context.Background(), s.host, "the-vault", "open", nil)
			return fmt.Errorf("vault: %w", err)
		}
		answered := func() error {
			return (&owtp.Response{Status: 600, Msg: "vault's own words"}).Err()
		}
		for name, f := range map[string]func() error{
			"other":   func() error { return secret },
			"success": func() error { return &owtp.Error{Status: owtp.StatusSuccess, Msg: "hunter2"} },
			"none":    func() error { return &owtp.Error{Msg: "hunter2"} },
			"nested":  nested,
			"panic":   func() error { panic("hunter2") },
			"nil":     func() error { return (*owtp.Error)(nil) },
		} {
			must(t, owtp.Handle(s.host, name, func(context.Context, any) (any, error) { return "a result", f() }))
			_, err := owtp.Invoke[any](background(t), s.client, "testhost", name, nil, opts)
			e := wantStatus(t, err, owtp.ErrInternalServerError)
			if e.Msg != "handler failed" || e.Details != nil {
				t.Errorf("%s: the caller hears %q with %v", name, e.Msg, e.Details)
			}
		}
		// A response that the program makes itself is its own.
		must(t, owtp.Handle(s.host, "own", func(context.Context, any) (any, error) { return nil, answered() }))
		_, err := owtp.Invoke[any](background(t), s.client, "testhost", "own", nil, opts)
		wantStatus(t, err, 600)
	})
}

func TestInvokeErrors(t *testing.T) {
	inFormats(t, func(t *testing.T, s *stage, opts *owtp.CallOptions) {
		must(t, owtp.Handle(s.host, "text", func(context.Context, any) (any, error) { return map[string]any{"left": "much"}, nil }))
		_, err := owtp.Invoke[balance](background(t), s.client, "testhost", "text", nil, opts)
		e := wantStatus(t, err, owtp.ErrResponseMethodDiffer)
		wantErr(t, err, "left", "balance")
		if !e.MayHaveRun {
			t.Error("the handler ran")
		}
		_, err = owtp.Invoke[balance](background(t), s.client, "testhost", "nothing", nil, opts)
		if e := wantStatus(t, err, owtp.ErrNotFoundMethod); e.Method != "nothing" || e.PeerID != "testhost" {
			t.Errorf("got %+v", e)
		}
		_, err = owtp.Invoke[balance](background(t), s.client, "nobody", "text", nil, opts)
		if wantStatus(t, err, owtp.ErrNetworkDisconnected); !errors.Is(err, owtp.ErrUnknownPeer) {
			t.Errorf("error %v does not say that the peer is unknown", err)
		}
		_, err = owtp.Invoke[balance](background(t), s.client, "testhost", "text", make(chan int), opts)
		wantErr(t, err, "chan int", opts.Format)
		wantStatus(t, err, owtp.ErrBadRequest)
		_, err = owtp.Invoke[balance](background(t), s.client, "testhost", "text", nil, opts, opts)
		wantStatus(t, err, owtp.ErrBadRequest)
		_, err = owtp.Invoke[balance](background(t), owtp.NewNode(owtp.NodeConfig{}), "testhost", "text", nil, opts)
		wantErr(t, wantStatus(t, err, owtp.ErrBadRequest), "Cert")
	})
}

func TestHandleRegistersAsHandleFuncDoes(t *testing.T) {
	t.Parallel()
	n := randomNode(t)
	f := func(context.Context, any) (any, error) { return nil, nil }
	must(t, owtp.Handle(n, "m", f, owtp.Repeatable()))
	wantErr(t, owtp.Handle(n, "m", f), "m", "already")
	wantErr(t, owtp.Handle(n, "owtp.m", f), "reserved")
	wantErr(t, owtp.Handle[any, any](n, "nil", nil), "nil")
	wantErr(t, owtp.Handle(owtp.NewNode(owtp.NodeConfig{}), "m", f), "Cert")
}

func TestFromContext(t *testing.T) {
	t.Parallel()
	if c := owtp.FromContext(context.Background()); c != nil {
		t.Errorf("a context that is no handler's has request %v", c)
	}
	s := newStage(t, way{connect: owtp.Memory})
	s.connect(t)
	must(t, s.host.HandleFunc("who", func(ctx *owtp.Context) {
		inner, cancel := context.WithTimeout(ctx.Context(), patience)
		defer cancel()
		c := owtp.FromContext(inner)
		ctx.Response(c == ctx && c.PID != "", owtp.StatusSuccess, "")
	}))
	if !answer(t, s.client, "testhost", "who", nil).JsonData().Bool() {
		t.Error("a context made of a handler's does not lead to its request")
	}
}

// A handler that gives up when its context ends has not failed. An end that it
// made for itself is a failure.
func TestTypedHandlersOutOfTime(t *testing.T) {
	inFormats(t, func(t *testing.T, s *stage, opts *owtp.CallOptions) {
		began, answered := make(chan struct{}, 1), make(chan uint64, 2)
		s.host.HandleFinishFunc(func(ctx *owtp.Context) { answered <- ctx.Resp.Status })
		must(t, owtp.Handle(s.host, "late", func(ctx context.Context, _ any) (any, error) {
			began <- struct{}{}
			<-ctx.Done()
			return nil, fmt.Errorf("waiting: %w", ctx.Err())
		}))
		must(t, owtp.Handle(s.host, "own", func(ctx context.Context, _ any) (any, error) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return nil, ctx.Err()
		}))
		ctx, cancel := context.WithCancel(background(t))
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- second(owtp.Invoke[any](ctx, s.client, "testhost", "late", nil, opts)) }()
		within(t, began, "the handler")
		cancel()
		wantStatus(t, within(t, done, "the call"), owtp.ErrRequestTimeout)
		if got := within(t, answered, "the answer"); got != owtp.ErrRequestTimeout {
			t.Errorf("the handler's answer is %d", got)
		}
		wantStatus(t, second(owtp.Invoke[any](background(t), s.client, "testhost", "own", nil, opts)), owtp.ErrInternalServerError)
	})
}
