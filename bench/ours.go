package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/bench/benchpb"
	"github.com/owtp-go/owtp/codec"
	_ "github.com/owtp-go/owtp/contrib/nats" // MQ over NATS
)

// A form is how calls are protected.
type form struct {
	name  string
	sign  bool
	suite string // "" is not sealed
}

var forms = []form{
	{name: "open"}, {name: "signed", sign: true}, {name: "sealed", suite: "aes"}, {name: "sealed-sm4", suite: "sm4"}, {name: "sealed+signed", sign: true, suite: "aes"},
}

const oursSetting = "defaults, but for room where the load is a flood by design: MaxRequestsPerPeer 4096, MaxReceiving 2 GiB, MaxHandshakeRate 1e6"

var ourFormats = append(slices.Clone(formats), formatStructJSON, formatStructPB)

// ours is this library, over each transport in each form.
var ours = func() (all []*subject) {
	for _, medium := range []struct{ name, connect, broker string }{
		{"ws", owtp.Websocket, ""}, {"http", owtp.HTTP, ""}, {"mem", owtp.Memory, ""}, {"amqp", owtp.MQ, "rabbitmq"}, {"nats", owtp.MQ, "nats"},
	} {
		for _, f := range forms {
			all = append(all, &subject{
				name: "owtp/" + medium.name + "/" + f.name, setting: oursSetting, formats: ourFormats, needs: medium.broker,
				open: func(_ context.Context, e *env, j job) (*line, error) {
					return openOurs(e, medium.connect, medium.broker, f, j)
				},
			})
		}
	}
	return append(all, &subject{name: "owtp/connect", setting: oursSetting + "; a WebSocket is dialled, a hybrid handshake made, the connection closed; a node for each caller", open: openConnecting})
}()

// octets is a data format that leaves octets what they are.
type octets struct{}

func (octets) Name() string        { return formatRaw.name }
func (octets) ContentType() string { return "application/octet-stream" }

func (octets) Marshal(v any) ([]byte, error) {
	switch v := v.(type) {
	case []byte:
		return v, nil
	case nil:
		return nil, nil
	}
	return nil, fmt.Errorf("a %T is no octets", v)
}

func (octets) Unmarshal(data []byte, v any) error {
	switch v := v.(type) {
	case *[]byte:
		*v = data
	case *any:
		*v = data
	default:
		return fmt.Errorf("octets do not fit into a %T", v)
	}
	return nil
}

var registerOctets = sync.OnceValue(func() error { return codec.Register(octets{}) })

// names keeps addresses in memory apart.
var names atomic.Int64

// roomy are limits for one peer that is a thousand callers.
func roomy() owtp.Limits {
	return owtp.Limits{MaxRequestsPerPeer: 4096, MaxHandshakeRate: 1e6, MaxHandshakes: max(runtime.GOMAXPROCS(0), 2), MaxHandshakeQueue: 1 << 16, MaxReceiving: 2<<30 - 1}
}

// openOurs is two nodes. Neither is given a store: what lies in one is sealed for
// its place, which is the price of sharing it and not that of a call.
func openOurs(e *env, connect, broker string, f form, j job) (_ *line, err error) {
	if err := registerOctets(); err != nil {
		return nil, err
	}
	host, err := owtp.New(owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Limits: roomy()})
	if err != nil {
		return nil, err
	}
	client, err := owtp.New(owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Limits: roomy()})
	if err != nil {
		return nil, err
	}
	closeAll := func() {
		_ = client.Close()
		_ = host.Close()
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	listen := owtp.ConnectConfig{ConnectType: connect, Address: "127.0.0.1:0", EnableSignature: f.sign, EnableKeyAgreement: f.suite != ""}
	switch connect {
	case owtp.Memory:
		listen.Address = fmt.Sprint("bench", names.Add(1))
	case owtp.MQ:
		s, err := e.broker(broker)
		if err != nil {
			return nil, err
		}
		listen.Address = s.DSN
		if broker == "nats" { // whose address has no password in it
			u, err := url.Parse(s.DSN)
			if err != nil {
				return nil, errors.New("the URL of the NATS server cannot be read")
			}
			listen.Address, listen.Account = "nats://"+u.Host, u.User.Username()
			listen.Password, _ = u.User.Password()
		}
	}
	if err := host.Listen(listen); err != nil {
		return nil, err
	}
	dial := listen
	dial.Address = host.ListenerAddr(connect)
	if connect == owtp.MQ {
		dial.Address, dial.WriteQueueName = listen.Address, "owtp.node."+host.NodeID()
	}
	call, err := echoes(host, client, &dial, j)
	if err != nil {
		return nil, err
	}
	if err := client.Connect("host", dial); err != nil {
		return nil, err
	}
	if f.suite != "" {
		if err := client.KeyAgreement("host", f.suite); err != nil {
			return nil, err
		}
	}
	return &line{call, closeAll}, nil
}

// echoes registers the handler as a program of that format would have it, and
// returns the call.
func echoes(host, client *owtp.OWTPNode, dial *owtp.ConnectConfig, j job) (func(context.Context, int) error, error) {
	answered := func(got any) error {
		if !sameSize(got, j.value) {
			return errAnswer
		}
		return nil
	}
	switch j.format {
	case formatProto:
		dial.DataFormat = codec.NameProtobuf
		return typed[*benchpb.Payload](client, j, answered), owtp.Handle(host, "echo", same[*benchpb.Payload])
	case formatStructPB:
		dial.DataFormat = codec.NameProtobuf
		fallthrough
	case formatStructJSON:
		return typed[*payload](client, j, answered), owtp.Handle(host, "echo", same[*payload])
	}
	if j.format == formatRaw {
		dial.DataFormat = formatRaw.name
	}
	return func(ctx context.Context, _ int) error {
			resp, err := client.CallContext(ctx, "host", "echo", j.value, nil)
			if err == nil {
				err = resp.Err()
			}
			if err != nil {
				return err
			}
			if raw, ok := resp.Result.(codec.Raw); ok {
				return answered(raw.Data)
			}
			return answered(resp.Result)
		}, host.HandleFunc("echo", func(c *owtp.Context) {
			if j.format == formatRaw {
				c.Response(codec.Raw{Format: formatRaw.name, Data: c.Data()}, owtp.StatusSuccess, "")
			} else {
				c.Response(json.RawMessage(c.Data()), owtp.StatusSuccess, "")
			}
		})
}

func same[T any](_ context.Context, in T) (T, error) { return in, nil }

func typed[T any](client *owtp.OWTPNode, j job, answered func(any) error) func(context.Context, int) error {
	return func(ctx context.Context, _ int) error {
		out, err := owtp.Invoke[T](ctx, client, "host", "echo", j.value)
		if err != nil {
			return err
		}
		return answered(out)
	}
}

// openConnecting makes a connection with its handshake at each call.
func openConnecting(_ context.Context, _ *env, j job) (_ *line, err error) {
	var nodes []*owtp.OWTPNode // the server first
	closeAll := func() {
		for _, n := range nodes {
			_ = n.Close()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	for range 1 + j.callers {
		n, err := owtp.New(owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Limits: roomy()})
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	at := owtp.ConnectConfig{ConnectType: owtp.Websocket, Address: "127.0.0.1:0", EnableKeyAgreement: true}
	if err := nodes[0].Listen(at); err != nil {
		return nil, err
	}
	at.Address, at.Suites = nodes[0].ListenerAddr(owtp.Websocket), []string{"aes"}
	return &line{func(ctx context.Context, caller int) error {
		n := nodes[1+caller]
		if err := n.ConnectContext(ctx, "host", at); err != nil {
			return err
		}
		n.ClosePeer("host")
		return nil
	}, closeAll}, nil
}
