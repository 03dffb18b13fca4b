package owtp

import (
	"context"
	"fmt"
	"strings"

	"github.com/owtp-go/owtp/transport"
)

// Version 1 over message queues: its nodes name the exchange and both queues
// beforehand, so that this node knows from its configuration alone where answers
// go. Nothing that a message says sends one elsewhere.

// checkV1Queues checks what must be named: by a listener that takes both versions
// from one queue, and to dial in version 1. asks is the field that asks for it.
func (s *spec) checkV1Queues(asks string) error {
	scheme, _, _ := strings.Cut(s.Address, "://")
	switch {
	case brokers[scheme] == nil:
		return fmt.Errorf("owtp: ConnectConfig.%s: version 1 exists over RabbitMQ (amqp://, amqps://) and no other broker, not over %s://; leave %[1]s out here", asks, scheme)
	case s.Exchange == "":
		return fmt.Errorf("owtp: ConnectConfig.%s over MQ needs Exchange: version 1 peers publish to one that is named, such as amq.direct; name the one in their configuration", asks)
	case s.WriteQueueName == "":
		return fmt.Errorf("owtp: ConnectConfig.%s over MQ needs WriteQueueName, the queue that the version 1 peer reads (its ReadQueueName): its requests do not say where their answers go", asks)
	case s.ReadQueueName == "" && s.isV1():
		return fmt.Errorf("owtp: ConnectConfig.%s over MQ needs ReadQueueName, the queue that the version 1 peer writes to (its WriteQueueName), which this node alone reads", asks)
	case s.WriteQueueName == s.ReadQueueName:
		return fmt.Errorf("owtp: ConnectConfig.WriteQueueName and ReadQueueName are both %q: answers would come back as requests; the peer reads another queue", s.ReadQueueName)
	}
	return nil
}

// answerV1Queued answers a message of version 1 in the queue of the
// configuration.
func (f *listener) answerV1Queued(ctx context.Context, peer *Peer, m transport.Message) (transport.Message, error) {
	answer, err := f.answerV1(ctx, peer, m)
	answer.To = f.spec.WriteQueueName
	return answer, err
}
