package owtp

import (
	"fmt"
	"maps"
	"slices"

	"github.com/owtp-go/owtp/internal/amqpt"
	"github.com/owtp-go/owtp/internal/httpt"
	"github.com/owtp-go/owtp/internal/memt"
	"github.com/owtp-go/owtp/internal/wst"
	"github.com/owtp-go/owtp/transport"
)

// transports are the ways to connect that come with the node, and brokers the
// message brokers, by the scheme of their address.
var (
	transports = map[string]transport.Transport{
		HTTP:      httpt.New(),
		Websocket: wst.New(),
		Memory:    memt.New(),
	}
	brokers = map[string]transport.Broker{
		"amqp":  amqpt.New(),
		"amqps": amqpt.New(),
	}
	v1Broker = amqpt.NewLegacy()
)

// transport returns what carries messages for a checked configuration.
func (s *spec) transport() transport.Transport {
	switch {
	case s.broker != nil && s.isV1():
		return v1Broker
	case s.broker != nil:
		return s.broker
	}
	return transports[s.ConnectType]
}

func checkConnectType(connectType string) error {
	if transports[connectType] != nil || connectType == MQ {
		return nil
	}
	return fmt.Errorf("owtp: unknown connect type %.40q; known are %q, %q, %q and %q", connectType, HTTP, Websocket, MQ, Memory)
}

func brokerFor(scheme string) transport.Broker {
	if b := brokers[scheme]; b != nil {
		return b
	}
	return transport.BrokerFor(scheme)
}

func brokerSchemes() []string {
	return slices.Sorted(slices.Values(append(slices.Collect(maps.Keys(brokers)), transport.BrokerSchemes()...)))
}
