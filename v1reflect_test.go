package owtp

import (
	"testing"

	"github.com/owtp-go/owtp/internal/legacy"
)

// Version 1 seals both directions under one key, so that what this node has
// sealed opens as a request. An attacker has no key, but sees the check value in
// clear, and can have an answer sealed under a nonce that he chooses.

// reflected is an answer sent back as a request.
func reflected(q, answer *legacy.Packet) *legacy.Packet {
	p := *q
	p.Data, p.Signature = answer.Data, ""
	return &p
}

// A refusal of this node's is no call back of the peer that it has dialled.
func TestV1CallAttackReflectedRefusal(t *testing.T) {
	t.Parallel()
	s := newV1Stand(t, "", v1Modes["agreed"])
	for what, junk := range map[string]string{"no ciphertext": "AAAA", "a ciphertext of nothing": "AAAAAAAAAAAAAAAAAAAAAA=="} {
		p := s.asks("1", false)
		if err := p.SetText(junk); err != nil {
			t.Fatal(err)
		}
		s.conn.send(v1Text(t, p))
		s.refuses(what, reflected(p, s.conn.packet()), 502)
	}
	p := s.asks("1", false)
	p.Method = "nosuch" // which runs nothing and leaves a record
	s.conn.send(v1Text(t, p))
	q := reflected(p, s.conn.packet())
	q.Method = "ping"
	s.refuses("an answer", q, 502)
	s.serves("the same parameters, signed", s.asks(`{"status":200,"msg":"","result":null}`, true), v1Seen{
		pid: "v1:" + s.peer.id(), data: `{"status":200,"msg":"","result":null}`, proved: true, signed: true, sealed: true,
	})
}

// What a listener answers is no request of the peer that it was sealed for.
func TestV1AttackReflectedAnswers(t *testing.T) {
	eachV1Way(t, ConnectConfig{InsecureV1TrustAgreement: true, InsecureV1BareText: true}, func(t *testing.T, w *v1Way) {
		c := newV1Stranger(t)
		ask := func(p *legacy.Packet) *legacy.Packet {
			answer, err := legacy.ParsePacket([]byte(w.ask(c.announce(), v1Text(t, p))), 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			return answer
		}
		begin := c.begin()
		agreed := ask(begin)
		c.opened(v1Text(t, agreed))
		honest := c.request("getInfo", `{"x":1}`)
		junk := c.request("getInfo", "1")
		if err := junk.SetText("AAAAAAAAAAAAAAAAAAAAAA=="); err != nil {
			t.Fatal(err)
		}
		missing := c.request("nosuch", "1")
		for what, p := range map[string][2]*legacy.Packet{
			"of the agreement": {begin, agreed},
			"a refusal":        {junk, ask(junk)},
			"no such method":   {missing, ask(missing)},
		} {
			q := reflected(p[0], p[1])
			q.Keys, q.Method = honest.Keys, "echo"
			if r := w.send(c, q); r.Status != 502 {
				t.Errorf("%s: %+v", what, r)
			}
			w.untouched(what)
		}
	})
}
