package amqpt

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/owtp-go/owtp/transport"
)

// The content types of the two forms, as on HTTP.
const (
	typeBinary = "application/owtp"
	typeJSON   = "application/owtp+json"
)

// refusalType marks a message that is no packet but a complaint: the status in a
// header, the reason in the body.
const (
	refusalType  = "owtp.refusal"
	statusHeader = "status"
)

// probeType marks a message to oneself.
const probeType = "owtp.probe"

func contentType(f transport.Form) string {
	if f == transport.JSON {
		return typeJSON
	}
	return typeBinary
}

func formOf(contentType string) (transport.Form, bool) {
	switch contentType {
	case typeBinary:
		return transport.Binary, true
	case typeJSON:
		return transport.JSON, true
	}
	return 0, false
}

// expiration is AMQP's text for the time that a message may wait.
func expiration(d time.Duration) string {
	return strconv.FormatInt(max(d.Milliseconds(), 1), 10)
}

// expiresOf reads what expiration wrote; nonsense is no time at all.
func expiresOf(text string, most time.Duration) time.Duration {
	if len(text) > 10 {
		return 0
	}
	ms, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0
	}
	return min(time.Duration(ms)*time.Millisecond, most)
}

// read checks a delivered request.
func (e *endpoint) read(queue string, d amqp.Delivery) (transport.Message, *transport.Refusal) {
	if e.legacy(d) {
		return e.readLegacy(queue, d)
	}
	form, refusal := e.check(d)
	if refusal != nil {
		return transport.Message{}, refusal
	}
	return transport.Message{
		Form:        form,
		Data:        d.Body,
		To:          queue,
		ReplyTo:     d.ReplyTo,
		Expires:     expiresOf(d.Expiration, e.cfg.MaxQueueTime),
		Redelivered: d.Redelivered,
	}, nil
}

// check is for requests and answers.
func (e *endpoint) check(d amqp.Delivery) (transport.Form, *transport.Refusal) {
	form, ok := formOf(d.ContentType)
	if !ok {
		return 0, &transport.Refusal{Status: http.StatusUnsupportedMediaType, Reason: "content type is neither " + typeBinary + " nor " + typeJSON}
	}
	return form, e.checkBody(d)
}

// checkBody is for messages of both versions.
func (e *endpoint) checkBody(d amqp.Delivery) *transport.Refusal {
	switch {
	case d.ContentEncoding != "":
		return &transport.Refusal{Status: http.StatusUnsupportedMediaType, Reason: "no content encoding is understood"}
	case len(d.Body) > e.cfg.MaxMessage:
		return &transport.Refusal{Status: http.StatusRequestEntityTooLarge, Reason: "message too large"}
	case len(d.Body) == 0:
		return &transport.Refusal{Status: http.StatusBadRequest, Reason: "empty message"}
	}
	return nil
}

// readAnswer makes of a delivery what Exchange returns.
func (e *endpoint) readAnswer(d amqp.Delivery) result {
	if d.Type == refusalType {
		return result{err: readRefusal(d)}
	}
	form, refusal := e.check(d)
	if refusal != nil {
		refusal.Reason = "the answer: " + refusal.Reason
		return result{err: refusal}
	}
	return result{answer: transport.Message{Form: form, Data: d.Body, To: e.queues.Reply, Redelivered: d.Redelivered}}
}

func readRefusal(d amqp.Delivery) *transport.Refusal {
	status, ok := d.Headers[statusHeader].(int32)
	if !ok || status < 400 || status > 599 {
		status = http.StatusBadGateway
	}
	return &transport.Refusal{Status: int(status), Reason: oneLine(string(d.Body[:min(len(d.Body), maxReason)]))}
}

func writeRefusal(r *transport.Refusal) amqp.Publishing {
	return amqp.Publishing{
		Type:    refusalType,
		Headers: amqp.Table{statusHeader: int32(r.Status)},
		Body:    []byte(oneLine(r.Reason)),
	}
}

// isReplyQueue tells whether an answer may go to a queue that nobody has proved.
func isReplyQueue(name string) bool {
	return strings.HasPrefix(name, transport.ReplyQueuePrefix) && len(name) <= maxName
}

// unsendable is what Exchange says against a message of its caller's.
func (e *endpoint) unsendable(m transport.Message) error {
	switch {
	case len(m.Data) == 0:
		return transport.NotSent(&transport.Refusal{Status: http.StatusBadRequest, Reason: "a message over AMQP cannot be empty"})
	case len(m.Data) > e.cfg.MaxMessage:
		return transport.NotSent(&transport.Refusal{Status: http.StatusRequestEntityTooLarge, Reason: "message too large to send"})
	case m.To == "":
		return transport.NotSent(errors.New("owtp: no queue to send to: neither the message nor the configuration names one"))
	case len(m.To) > maxName:
		return transport.NotSent(fmt.Errorf("owtp: a queue's name of %d bytes, at most %d", len(m.To), maxName))
	}
	return nil
}
