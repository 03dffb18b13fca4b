package owtp

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/legacy"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// The calling side of version 1: its requests and the answers to them. Answers
// are never signed there, so that only a key agreement tells who answers.

// v1Dialled is how a remote is called in version 1.
type v1Dialled struct {
	node   *OWTPNode
	remote *remote
	key    *identity.PrivateKey // this node's towards the peer

	mu        sync.Mutex
	agreement *v1Agreement // of exchanges: that calls take now; nil if there is none
}

func (n *OWTPNode) newV1Dialled(r *remote) *v1Dialled {
	return &v1Dialled{node: n, remote: r, key: n.v1Key(r.spec())}
}

// v1Carries returns what version 1 has no place for in a packet of this version.
func v1Carries(p *wire.Packet) error {
	switch {
	case p.Kind == wire.Heartbeat:
		return errV1Ping
	case p.Kind != wire.Request:
		return errV1OneWay
	case p.Format != "":
		return errV1Format
	case len(p.Meta) > 0 || p.Trace != "" || !p.CallKey.IsZero():
		return errV1Extras
	}
	return nil
}

var (
	errV1Ping    = newError(ErrBadRequest, "version 1 has no packet that asks for a sign of life; use Call")
	errV1NotYet  = newError(ErrKeyAgreementFailed, "nothing is agreed on with the peer on this connection")
	errV1Another = newError(ErrResponseMethodDiffer, "the answer is not to the request that was sent")
	errV1Like    = newError(ErrBadRequest, "the parameters have the form of an answer (status, msg and result, and nothing else): in packet version 0, which ConnectConfig.InsecureV1PacketVersion0 asks for, anybody on the way could send them back as the peer's answer to another call")
	errV1Forgot  = newError(ErrOutcomeUnknown, "the peer has forgotten what was agreed on, and says that it could not read the call; it may have run it before, so that it is not sent again unless CallOptions.Repeatable allows it. The next call agrees anew")
)

// packet begins a request.
func (d *v1Dialled) packet(method string) (*legacy.Packet, error) {
	nonce, err := d.node.v1Nonce()
	return &legacy.Packet{Kind: legacy.Request, Method: method, Nonce: nonce, Time: d.node.now().Unix(), Version: d.remote.spec().packetVersion()}, err
}

// request makes the packet of a call in a mode, sealed under an agreement unless
// that is nil, and returns what opens the answer to it.
func (d *v1Dialled) request(p *wire.Packet, mode wire.Mode, a *v1Agreement) (*legacy.Packet, v1Answer, error) {
	if err := v1Carries(p); err != nil {
		return nil, nil, err
	}
	if mode.Sealed() && a == nil {
		return nil, nil, errV1NotYet
	}
	q, err := d.packet(p.Method)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case a != nil && q.Version == 0 && answers(p.Data):
		err = errV1Like
	case a != nil:
		err = a.seal(q, p.Data)
	default:
		err = q.SetJSON(p.Data)
	}
	switch {
	case errors.Is(err, errV1NotYet), errors.Is(err, errV1Like):
		return nil, nil, err
	case err != nil:
		return nil, nil, newError(ErrBadRequest, "the parameters do not go into a packet of version 1: %w", err)
	}
	if mode.Signed() {
		if err := legacy.Sign(d.node.local.Rand, d.key, q); err != nil {
			return nil, nil, err
		}
	}
	if a == nil {
		return q, func(resp *legacy.Packet) (*wire.Packet, bool, error) {
			p, err := d.openPlain(q, resp)
			return p, false, err
		}, nil
	}
	return q, func(resp *legacy.Packet) (*wire.Packet, bool, error) { return d.open(a, q, resp) }, nil
}

// openPlain reads an answer that anybody may have given.
func (d *v1Dialled) openPlain(q, resp *legacy.Packet) (*wire.Packet, error) {
	text, err := resp.Text()
	if err != nil || resp.Keys.ResponderCheck != "" {
		return nil, errV1Illegible
	}
	return v1Opened(q, []byte(text))
}

// open reads the answer to a sealed request. What comes in the clear does not
// answer it, but may say why there is no answer.
func (d *v1Dialled) open(a *v1Agreement, q, resp *legacy.Packet) (p *wire.Packet, proved bool, err error) {
	if resp.Keys.ResponderCheck == "" {
		p, err := d.openPlain(q, resp)
		if err != nil || p.OKStatus() {
			return nil, false, errV1Weaker
		}
		e := refusedBy(p, &Peer{id: d.remote.name}, false)
		e.MayHaveRun = true
		return nil, false, e
	}
	if err := v1SameVersion(q, resp); err != nil {
		return nil, false, err
	}
	sealed, err := resp.Text()
	if err != nil || sealed == "" {
		return nil, false, errV1Illegible
	}
	if asked, err := q.Text(); err != nil || asked == sealed {
		return nil, false, errV1Mirrored
	}
	text, anew, err := a.open(resp.Keys, sealed, q)
	if err != nil {
		return nil, false, err
	}
	if p, err = v1Opened(q, text); err != nil {
		return nil, false, err
	}
	if anew && p.Status == ErrKeyAgreementFailed {
		return nil, false, errV1Forgot
	}
	return p, true, nil
}

// v1SameVersion refuses an answer of another packet version than the request's:
// that chooses the key, and the sender alone has chosen.
func v1SameVersion(q, resp *legacy.Packet) error {
	switch {
	case resp.Version == q.Version:
		return nil
	case resp.Version == 0:
		return newError(ErrResponseMethodDiffer, "the answer is of packet version 0, and the request was of version %d: the peer is an old node, or somebody on the way has taken the version away. If it is an old node, ConnectConfig.InsecureV1PacketVersion0 calls it with less protection (docs/V1.md)", q.Version)
	}
	return newError(ErrResponseMethodDiffer, "the answer is of packet version %d, and the request was of version %d: the peer does not speak as this node is configured to, or somebody on the way has changed it", resp.Version, q.Version)
}

// v1Opened makes a response of this version of the data of one.
func v1Opened(q *legacy.Packet, data []byte) (*wire.Packet, error) {
	r, err := legacy.ParseResult(data)
	if err != nil {
		return nil, errV1Illegible
	}
	return &wire.Packet{
		Kind: wire.Response, Method: q.Method, Nonce: v1Key(q.Nonce),
		Status: r.Status, Msg: clip(r.Msg, wire.MaxMessage), Data: r.Result,
	}, nil
}

// tell tells the log once of each peer that is called in version 1, in each mode,
// what that leaves open.
func (d *v1Dialled) tell(mode wire.Mode) {
	r, n := d.remote, d.node
	if !n.v1Told.first("dialled\x00" + mode.String() + "\x00" + r.name) {
		return
	}
	risks := v1CallRisks[mode]
	if mode.Sealed() && r.spec().packetVersion() == 0 {
		risks += "; " + v1CallRisksOld
	}
	args := []any{"peer", r.name, "address", r.spec().Address, "mode", mode.String(), "risks", risks}
	if pin := r.pinned(); !pin.IsZero() && !mode.Sealed() {
		args = append(args, "not_proved", pin.String())
	}
	n.log.Warn("a peer is called in version 1", args...)
}

// v1CallRisks are what calls in each of version 1's modes leave open
// (docs/V1.md).
var v1CallRisks = map[wire.Mode]string{
	wire.ModeOpen:         "who answers is not known: anybody on the way reads and changes requests and answers, and runs requests again",
	wire.ModeSigned:       "who answers is not known: anybody on the way reads requests and answers, and writes answers; requests have no recipient and run wherever else they are taken",
	wire.ModeSealed:       "who answers is known, and who has seen an answer can try to change parts of it, or put that to another method in its place; requests are not signed; with the peer's private key all of it is read later, if the peer is one of version 1's own nodes",
	wire.ModeSealedSigned: "who answers is known, and who has seen an answer can try to change parts of it, or, unless the peer asks for signatures, put that to another method in its place; with the peer's private key all of it is read later, if the peer is one of version 1's own nodes",
}

// v1CallRisksOld is what packets of version 0 add to them.
const v1CallRisksOld = "its packets are of version 0: one key encrypts all of a session, so that copies of requests may run, answers can be put in each other's place, and equal beginnings are seen to be equal"

// A v1Agreement is one that this node has begun. Calls that are under way keep
// it while another one takes its place.
type v1Agreement struct {
	begun    *legacy.Initiator
	sessions v1Sessions // holds the session of now

	mu   sync.Mutex
	peer *identity.PublicKey // who has answered; nobody else may answer later

	// Of exchanges, guarded by the lock of their v1Dialled:
	refs  int
	born  time.Time
	at    time.Time // of the last answer that was proved; zero if an exchange has failed since
	ended uint64    // connections that had ended when it began
}

// A v1Ask sends a request and returns the response to it.
type v1Ask func(context.Context, *legacy.Packet) (*legacy.Packet, error)

// agree makes an agreement with the peer that must answer.
func (d *v1Dialled) agree(ctx context.Context, mode wire.Mode, ask v1Ask) (*v1Agreement, error) {
	a, p, err := d.agreeWithAnybody(ctx, mode, ask)
	if err != nil {
		return nil, err
	}
	err = d.remote.recognise(ctx, a.peer)
	if err == nil && !p.OKStatus() {
		err = refusedBy(p, &Peer{id: d.remote.name}, true)
	}
	if err != nil {
		a.erase()
		return nil, err
	}
	return a, nil
}

// agreeWithAnybody makes an agreement by one question. The response to it, of
// whatever status, proves the key of who has answered.
func (d *v1Dialled) agreeWithAnybody(ctx context.Context, mode wire.Mode, ask v1Ask) (*v1Agreement, *wire.Packet, error) {
	q, err := d.packet(legacy.MethodAgree)
	if err != nil {
		return nil, nil, err
	}
	a, rand := new(v1Agreement), d.node.local.Rand
	if d.node.v1Ephemeral != nil {
		rand = d.node.v1Ephemeral()
	}
	if a.begun, err = legacy.Initiate(rand, d.key); err != nil {
		return nil, nil, newError(ErrKeyAgreementFailed, "%w", err)
	}
	q.Keys = a.begun.Keys()
	if err := q.SetJSON([]byte("null")); err != nil {
		return nil, nil, err
	}
	if mode.Signed() {
		if err := legacy.Sign(d.node.local.Rand, d.key, q); err != nil {
			return nil, nil, err
		}
	}
	resp, err := ask(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	p, _, err := d.open(a, q, resp)
	return a, p, err
}

// identifyV1 is Identify in version 1, where an agreement is the proof.
func (n *OWTPNode) identifyV1(ctx context.Context, s *spec) (string, error) {
	r := n.newRemote(s.Address, s, s.transport())
	defer r.close()
	if err := r.dialExchanger(ctx); err != nil {
		return "", err
	}
	ask := r.v1.askByExchange
	if r.exch == nil {
		conn, err := r.tr.(transport.ConnDialer).DialConn(ctx, n.dialConfig(s))
		if err != nil {
			return "", err
		}
		defer conn.Close("identified")
		if ask = r.v1.askOver(conn); s.broker != nil {
			ask = (&v1Line{v1Dialled: r.v1}).askBehind(&v1Backlog{Conn: conn})
		}
	}
	a, _, err := r.v1.agreeWithAnybody(ctx, r.mode(), ask)
	if err != nil {
		return "", err
	}
	defer a.erase()
	switch id := a.peer.ID(); {
	case a.peer.Equal(r.v1.key.Public()):
		return "", trustError("this node itself answers at %s", s.Address)
	case !s.peer.IsZero() && s.peer != id:
		return "", trustError("%s answers at %s, and it must be %s", id, s.Address, s.peer)
	default:
		return id.String(), nil
	}
}

func (a *v1Agreement) seal(q *legacy.Packet, data []byte) error {
	s := a.sessions.current()
	if s == nil {
		return errV1NotYet
	}
	defer a.sessions.release(s)
	return s.use(func(s *legacy.Session) error {
		q.Keys = s.RequestKeys()
		return q.SealJSON(s, data)
	})
}

// open decrypts an answer. One, but the first, that names another ephemeral of the peer's is
// under another key, which takes the place of the one before if it opens: the
// peer has forgotten that, or has had it for long enough.
func (a *v1Agreement) open(k legacy.Keys, sealed string, q *legacy.Packet) (text []byte, anew bool, err error) {
	read := func(s *legacy.Session) (err error) {
		if text, err = s.Open(sealed, q.Version, q.Nonce); err != nil {
			err = errV1Illegible
		}
		return err
	}
	if s := a.sessions.current(); s != nil {
		defer a.sessions.release(s)
		known := false
		err = s.use(func(s *legacy.Session) error {
			if known = s.IsResponse(k); known {
				return read(s)
			}
			return nil
		})
		if known {
			return text, false, err
		}
	}
	a.mu.Lock()
	peer := a.peer
	a.mu.Unlock()
	s, err := a.begun.Finish(k, peer)
	if err != nil {
		return nil, false, newError(ErrKeyAgreementFailed, "%w", err)
	}
	held := &v1Session{s: s, refs: 1, version: q.Version}
	defer a.sessions.release(held)
	if err := held.use(read); err != nil {
		return nil, false, err
	}
	a.mu.Lock()
	a.peer = s.Responder()
	a.mu.Unlock()
	a.sessions.keep(held)
	return text, peer != nil, nil
}

// erase forgets the keys. Nothing opens after it.
func (a *v1Agreement) erase() { a.sessions.erase() }
