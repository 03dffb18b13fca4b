package transporttest

import (
	"context"
	"errors"
	"net/http"

	"github.com/owtp-go/owtp/transport"
)

// serveExchange relays one exchange.
func (p *Proxy) serveExchange(ctx context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
	number, err := p.enter()
	if err != nil {
		return transport.Message{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer p.cuttable(number, cancel)()

	requests, err := p.pass(ctx, Flow{Dir: ToServer, Conn: number, Message: m})
	if err != nil || len(requests) == 0 {
		return transport.Message{}, broken("the request was dropped")
	}
	answer, err := p.deliver(ctx, requests)
	if err != nil {
		return transport.Message{}, err
	}
	answers, err := p.pass(ctx, Flow{Dir: ToClient, Conn: number, Message: answer})
	if err != nil || len(answers) == 0 {
		return transport.Message{}, broken("the answer was dropped")
	}
	return clone(answers[0]), nil
}

// cuttable lets CutAll end the exchange until the returned function is called.
func (p *Proxy) cuttable(number int, cancel context.CancelFunc) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.exchanges[number] = cancel
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.exchanges, number)
	}
}

// deliver sends one request after the other and returns the picked answer. A
// refusal by the target passes through as it is.
func (p *Proxy) deliver(ctx context.Context, requests []transport.Message) (transport.Message, error) {
	x, err := p.targetExchanger()
	if err != nil {
		return transport.Message{}, broken(err.Error())
	}
	p.mu.Lock()
	pick := p.pick
	p.mu.Unlock()
	var picked transport.Message
	var pickedErr error
	for i, m := range requests {
		answer, err := x.Exchange(ctx, clone(m))
		if i == 0 || pick == LastAnswer {
			picked, pickedErr = answer, err
		}
	}
	var refusal *transport.Refusal
	switch {
	case pickedErr == nil:
		return picked, nil
	case errors.As(pickedErr, &refusal):
		return transport.Message{}, refusal
	}
	return transport.Message{}, broken(pickedErr.Error())
}

// targetExchanger returns the pooled exchanger to the present target.
func (p *Proxy) targetExchanger() (transport.Exchanger, error) {
	d, ok := p.dial.(transport.ExchangeDialer)
	if !ok {
		return nil, errors.New("the transport has no exchanges")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exchanger != nil {
		return p.exchanger, nil
	}
	x, err := d.DialExchange(p.ctx, p.target)
	if err != nil {
		return nil, err
	}
	p.exchanger = x
	p.exchangers = append(p.exchangers, x)
	return x, nil
}

func broken(why string) error {
	return &transport.Refusal{Status: http.StatusBadGateway, Reason: "proxy: " + why}
}
