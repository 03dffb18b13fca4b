package owtp_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// honest fails if the caller was told something about a call that ran which
// makes it believe that it did not.
func (r *rig) honest(what string, ok bool, err error) {
	r.t.Helper()
	n := r.bank.runs.Load()
	var e *owtp.Error
	switch {
	case n > 1:
		r.t.Errorf("%s: the handler has run %d times", what, n)
	case ok && n != 1:
		r.t.Errorf("%s: success without a run", what)
	case !ok && err == nil:
		r.t.Errorf("%s: reported as the peer's own refusal, after %d runs", what, n)
	case !ok && n == 1 && errors.As(err, &e) && !e.MayHaveRun:
		r.t.Errorf("%s: the handler has run, but the error says that it has not: %v", what, err)
	}
}

// False refusals in open packets and in status lines, instead of requests and
// instead of answers, once and always: never reported as proved, no call lost
// without a word, none run twice.
func TestAttackFalseRefusal(t *testing.T) {
	forge := map[string]func(req transport.Message, status uint64) (transport.Message, error){
		"json packet": func(req transport.Message, status uint64) (transport.Message, error) {
			return falseRefusal(transport.JSON, req, status), nil
		},
		"binary packet": func(req transport.Message, status uint64) (transport.Message, error) {
			return falseRefusal(transport.Binary, req, status), nil
		},
		"status line": func(_ transport.Message, status uint64) (transport.Message, error) {
			return transport.Message{}, &transport.Refusal{Status: int(status), Reason: "says the proxy"}
		},
	}
	each(t, exchangeMedia, proofModes, func(t *testing.T, m medium, g guard) {
		for name, lie := range forge {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				for _, status := range []uint64{400, 401, 402, 409, 413, 429, 503, 504, 600} {
					if status == 600 && name == "status line" && m == overHTTP {
						continue // HTTP has no such
					}
					for _, delivered := range []bool{false, true} {
						for _, most := range []int64{1, 1000} {
							if most > 1 && status != 402 && status != 503 {
								continue // these two make the caller do most
							}
							var lies, lying atomic.Int64
							r := relayRig(t, m, g, func(_ context.Context, m transport.Message, pass forward) (transport.Message, error) {
								if isHello(m) || lying.Load() == 0 || lies.Load() >= most {
									return pass(m)
								}
								lies.Add(1)
								if delivered {
									if _, err := pass(m); err != nil {
										return transport.Message{}, err
									}
								}
								return lie(m, status)
							})
							lying.Store(1)
							ok, err := r.pay("a", 3*time.Second)
							lying.Store(0)
							what := fmt.Sprintf("status %d, delivered %v, %d times", status, delivered, most)
							r.honest(what, ok, err)
							if lies.Load() == 0 {
								t.Errorf("%s: no lie was told", what)
							}
							before := r.bank.runs.Load()
							r.mustPay("after")
							r.bank.ran(t, before+1)
						}
					}
				}
			})
		}
	})
}

func falseRefusal(form transport.Form, req transport.Message, status uint64) transport.Message {
	p := &wire.Packet{Kind: wire.Response, Status: status, Method: "pay", Msg: "refused, says the proxy", Data: []byte("null")}
	if r, err := wire.ParseJSON(req.Data); err == nil {
		p.Nonce = r.Nonce
	}
	return packetAs(form, p)
}

// False refusals of handshakes: not proved, and soon forgotten.
func TestAttackFalseRefusalOfHandshake(t *testing.T) {
	each(t, media, proofModes, func(t *testing.T, m medium, g guard) {
		r := bareRig(t, m, g)
		for _, form := range []transport.Form{transport.JSON, transport.Binary} {
			for _, status := range []uint64{200, 401, 402, 409, 413, 429, 502, 503, 504} {
				var lies atomic.Int64
				r.proxy.OnMessage(func(f transporttest.Flow) []transport.Message {
					if typeOf(f.Message) != wire.TypeHelloReply {
						return pass(f)
					}
					lies.Add(1)
					return []transport.Message{packetAs(form, &wire.Packet{Kind: wire.Response, Status: status, Msg: "refused", Data: []byte("null")})}
				})
				err := r.connect()
				var e *owtp.Error
				if !errors.As(err, &e) || e.Proved {
					t.Errorf("status %d: connected, or said to be proved: %v", status, err)
				}
				if errors.Is(err, owtp.ErrTrust) {
					t.Errorf("status %d: somebody in between makes the peer look like an impostor: %v", status, err)
				}
				if lies.Load() == 0 {
					t.Errorf("status %d: no lie was told", status)
				}
			}
		}
		r.proxy.OnMessage(nil)
		if err := r.connect(); err != nil {
			t.Fatal(err)
		}
		r.mustPay("after")
		r.bank.ran(t, 1)
	})
}

// False refusals on a connection: what is not sealed ends it, and the call that
// waits ends as one that nobody has answered.
func TestAttackFalseRefusalOnConnection(t *testing.T) {
	each(t, longMedia, proofModes, func(t *testing.T, m medium, g guard) {
		for _, form := range []transport.Form{transport.JSON, transport.Binary} {
			r := newRig(t, m, g)
			var lies atomic.Int64
			r.onCall(func(f transporttest.Flow) []transport.Message {
				if f.Dir == transporttest.ToClient && lies.Add(1) == 1 {
					return []transport.Message{falseRefusal(form, f.Message, owtp.ErrUnauthorized)}
				}
				return pass(f)
			})
			ok, err := r.pay("a", 3*time.Second)
			r.honest(fmt.Sprint("form ", form), ok, err)
			if ok || lies.Load() == 0 {
				t.Errorf("ok %v after %d lies", ok, lies.Load())
			}
			r.recover("after", 1)
		}
	})
}

// A true refusal in the wrong place: after the first attempt has run unheard,
// whoever holds the others back until they are too old makes the peer itself
// refuse them. The caller must not take that for the fate of its call.
func TestAttackFalseRefusalByDelay(t *testing.T) {
	// On a queue a packet is fresh for as long as its caller waits (7.5).
	for _, g := range carrying(proofModes) {
		t.Run("http/"+g.name, func(t *testing.T) {
			t.Parallel()
			const window = 200 * time.Millisecond
			b := newBank(t, owtp.NodeConfig{Window: window})
			var n, delayed atomic.Int64
			addr := relayTo(t, overHTTP, b.listen(t, overHTTP, g), func(_ context.Context, m transport.Message, pass forward) (transport.Message, error) {
				if isHello(m) {
					return pass(m)
				}
				if n.Add(1) == 1 {
					if _, err := pass(m); err != nil {
						return transport.Message{}, err
					}
					return transport.Message{}, &transport.Refusal{Status: 502, Reason: "gone"}
				}
				delayed.Add(1)
				time.Sleep(2 * window)
				return pass(m)
			})
			r := &rig{t: t, m: overHTTP, g: g, bank: b, client: newNode(t, owtp.NodeConfig{Window: window})}
			if err := r.client.Connect("bank", owtp.ConnectConfig{Address: addr, ConnectType: owtp.HTTP, EnableSignature: g.sign, EnableKeyAgreement: g.seal, DataFormat: g.format}); err != nil {
				t.Fatal(err)
			}
			ok, err := r.pay("a", 10*time.Second)
			r.honest("delayed", ok, err)
			if delayed.Load() == 0 {
				t.Error("no further attempt was made, nothing was delayed")
			}
			b.ran(t, 1)
		})
	}
}
