package nats

import (
	"encoding/json"
	"fmt"

	natsgo "github.com/nats-io/nats.go"

	"github.com/owtp-go/owtp/transport"
)

// The server's codes of what a stream does not take.
const (
	codeStreamFull = 10077 // also over its bytes; the text says which
	codeTooLarge   = 10054
)

// A receipt is what a stream says of a message that it was to keep.
type receipt struct {
	Stream string `json:"stream"`
	Error  *struct {
		Code        int    `json:"err_code"`
		Description string `json:"description"`
	} `json:"error"`
}

// readReceipt returns why a message is not in the stream, or nil. Nobody but the
// server knows where receipts go, so that no peer can say that a request was not
// kept which it has.
func readReceipt(m *natsgo.Msg, queue string) error {
	if noResponders(m) {
		return transport.NotSent(&transport.Refusal{Status: 430, Reason: fmt.Sprintf("the queue %s has no stream: nobody has ever served it with durable=true", queue)})
	}
	var r receipt
	if err := json.Unmarshal(m.Data, &r); err != nil {
		return fmt.Errorf("owtp: the stream of %s answers something unreadable; whether it has the message is not known", queue)
	}
	switch {
	case r.Error == nil && r.Stream != "":
		return nil
	case r.Error == nil:
		return fmt.Errorf("owtp: the stream of %s does not say whether it has the message", queue)
	case r.Error.Code == codeTooLarge:
		// Only the broker says so: a node does not take its word for "not sent".
		return &transport.Refusal{Status: 413, Reason: "the queue " + queue + " takes no message that long"}
	case r.Error.Code == codeStreamFull:
		return transport.NotSent(&transport.Refusal{Status: 503, Reason: "the queue " + queue + " is full: " + line(r.Error.Description)})
	}
	return transport.NotSent(&transport.Refusal{Status: 503, Reason: fmt.Sprintf("the queue %s does not take the message: %s (%d)", queue, line(r.Error.Description), r.Error.Code)})
}
