package legacy

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/mr-tron/base58"

	"github.com/owtp-go/owtp/identity"
)

type encoded struct {
	Base58 string `json:"base58"`
	Hex    string `json:"hex"`
}

type agreementRun struct {
	Note                string  `json:"note"`
	InitiatorID         string  `json:"initiator_id_hex"`
	InitiatorPrivate    encoded `json:"initiator_private"`
	InitiatorPublic     encoded `json:"initiator_public"`
	InitiatorTmpPrivate encoded `json:"initiator_tmp_private"`
	InitiatorTmpPublic  encoded `json:"initiator_tmp_public"`
	ResponderID         string  `json:"responder_id_hex"`
	ResponderPrivate    encoded `json:"responder_private"`
	ResponderPublic     encoded `json:"responder_public"`
	ResponderTmpPublic  encoded `json:"responder_tmp_public"`
	Key, SB, SA, S2     encoded
}

type agreementEdge struct {
	Note      string `json:"note"`
	PK        string `json:"pk"`
	TPK       string `json:"tpk"`
	Responder string `json:"responder_private"`
	Result    string `json:"reference_result"`
	Output    *struct{ Key, SB, S2 encoded }
}

func readAgreements(t testing.TB) (runs []agreementRun, edges []agreementEdge) {
	var v struct {
		Runs     []agreementRun  `json:"runs"`
		Refusals []agreementEdge `json:"refusals"`
	}
	readVectors(t, "keyagreement.json", &v)
	if len(v.Runs) != 12 || len(v.Refusals) != 13 {
		t.Fatalf("%d runs and %d edge inputs", len(v.Runs), len(v.Refusals))
	}
	return v.Runs, v.Refusals
}

// initiator is who ran in a vector, with the ephemeral of that run.
func (r *agreementRun) initiator(t testing.TB) *Initiator {
	return &Initiator{privateKey(t, r.InitiatorPrivate.Base58), privateKey(t, r.InitiatorTmpPrivate.Base58)}
}

// The reference's responder has its static key for an ephemeral one. Both roles
// give its results.
func TestAgreementVectors(t *testing.T) {
	runs, _ := readAgreements(t)
	for _, r := range runs {
		i := r.initiator(t)
		asked := Keys{Initiator: r.InitiatorPublic.Base58, InitiatorEphemeral: r.InitiatorTmpPublic.Base58, Type: "aes"}
		if i.Keys() != asked {
			t.Errorf("%s: the initiator sends %+v", r.Note, i.Keys())
		}
		static := privateKey(t, r.ResponderPrivate.Base58)
		b, err := respond(static, static, asked)
		if err != nil {
			t.Fatal(r.Note, err)
		}
		answered := Keys{Responder: r.ResponderPublic.Base58, ResponderEphemeral: r.ResponderTmpPublic.Base58, ResponderCheck: r.SB.Base58}
		if b.ResponseKeys() != answered {
			t.Errorf("%s: the responder sends %+v", r.Note, b.ResponseKeys())
		}
		a, err := i.Finish(answered, static.Public())
		if err != nil {
			t.Fatal(r.Note, err)
		}
		later := asked
		later.InitiatorCheck = r.SA.Base58
		callback := Keys{Initiator: asked.Initiator, InitiatorEphemeral: asked.InitiatorEphemeral, CallbackCheck: r.S2.Base58}
		for _, s := range []*Session{a, b} {
			if s.RequestKeys() != later || s.ResponseKeys() != answered || s.CallbackKeys() != callback {
				t.Errorf("%s: later packets carry %+v, %+v, %+v", r.Note, s.RequestKeys(), s.ResponseKeys(), s.CallbackKeys())
			}
			if !s.IsRequest(later) || !s.IsResponse(answered) || !s.IsCallback(callback) {
				t.Errorf("%s: later packets are not recognised", r.Note)
			}
			from, to := s.Initiator().ID(), s.Responder().ID()
			if hex.EncodeToString(s.key[:]) != r.Key.Hex || hex.EncodeToString(from[:]) != r.InitiatorID || hex.EncodeToString(to[:]) != r.ResponderID {
				t.Errorf("%s: %x between %s and %s", r.Note, s.key, from, to)
			}
		}
	}
}

// The reference takes some of these. We take what is a point in its one
// encoding, and nothing else.
func TestRefusedAgreements(t *testing.T) {
	_, edges := readAgreements(t)
	taken, closed := 0, 0
	for _, e := range edges {
		static := privateKey(t, e.Responder)
		k := Keys{Initiator: e.PK, InitiatorEphemeral: e.TPK}
		s, err := respond(static, static, k)
		if e.Note == "tpk = curve point with X = 0, canonical encoding" {
			taken++
			if err != nil || hex.EncodeToString(s.key[:]) != e.Output.Key.Hex || s.ResponseKeys().ResponderCheck != e.Output.SB.Base58 || s.CallbackKeys().CallbackCheck != e.Output.S2.Base58 {
				t.Errorf("%s: %v", e.Note, err)
			}
			continue
		}
		if e.Result == "accepted" {
			closed++
		}
		which := "tpk"
		if strings.HasPrefix(e.Note, "pk") {
			which = "pk"
		}
		for _, err := range []error{err, refusedBy(Respond(rand.Reader, static, k))} {
			if !errors.Is(err, ErrAgreement) || !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), " "+which+":") {
				t.Errorf("%s: %v", e.Note, err)
			}
		}
		// The same point in an answer.
		bad := e.TPK
		if which == "pk" {
			bad = e.PK
		}
		i, err := Initiate(rand.Reader, static)
		if err != nil {
			t.Fatal(err)
		}
		own := static.Public().String()
		for _, k := range []Keys{{Responder: bad, ResponderEphemeral: own}, {Responder: own, ResponderEphemeral: bad}} {
			if _, err := i.Finish(k, nil); !errors.Is(err, ErrKey) {
				t.Errorf("%s, in a response: %v", e.Note, err)
			}
		}
	}
	if taken != 1 || closed != 3 {
		t.Errorf("%d inputs taken, %d refused that the reference takes", taken, closed)
	}
}

func refusedBy(_ *Session, err error) error { return err }

func TestFreshEphemerals(t *testing.T) {
	runs, _ := readAgreements(t)
	i := runs[0].initiator(t)
	key := privateKey(t, runs[0].ResponderPrivate.Base58)
	seen := make(map[string]bool)
	for range 3 {
		b, err := Respond(rand.Reader, key, i.Keys())
		if err != nil {
			t.Fatal(err)
		}
		a, err := i.Finish(b.ResponseKeys(), key.Public())
		if err != nil || a.key != b.key || a.RequestKeys() != b.RequestKeys() {
			t.Fatalf("the sides differ: %v", err)
		}
		if b.ResponseKeys().ResponderEphemeral == key.Public().String() {
			t.Error("the ephemeral is the static key")
		}
		seen[string(b.key[:])] = true
		other, err := Respond(rand.Reader, key, i.Keys())
		if err != nil {
			t.Fatal(err)
		}
		if other.IsRequest(a.RequestKeys()) || a.IsResponse(other.ResponseKeys()) || a.IsCallback(other.CallbackKeys()) || a.IsRequest(Keys{}) || a.IsResponse(Keys{}) || a.IsCallback(Keys{}) {
			t.Error("a packet of another session, or of none, belongs to this one")
		}
		// A check value stands in one place only.
		if a.IsCallback(a.RequestKeys()) || a.IsRequest(a.CallbackKeys()) || a.IsResponse(Keys{ResponderCheck: a.RequestKeys().InitiatorCheck}) {
			t.Error("a check value is taken in another's place")
		}
	}
	if len(seen) != 3 {
		t.Errorf("%d keys of three agreements", len(seen))
	}
	j, err := Initiate(rand.Reader, key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := Initiate(rand.Reader, key)
	if err != nil || j.Keys() == k.Keys() {
		t.Error("two agreements begin with one ephemeral", err)
	}
	if _, err := Initiate(bytes.NewReader(nil), key); !errors.Is(err, ErrAgreement) {
		t.Error(err)
	}
	if _, err := Respond(bytes.NewReader(nil), key, i.Keys()); !errors.Is(err, ErrAgreement) {
		t.Error(err)
	}
}

func TestWrongAnswers(t *testing.T) {
	runs, _ := readAgreements(t)
	i := runs[0].initiator(t)
	key, other := privateKey(t, runs[0].ResponderPrivate.Base58), privateKey(t, runs[1].ResponderPrivate.Base58)
	b, err := Respond(rand.Reader, key, i.Keys())
	if err != nil {
		t.Fatal(err)
	}
	good := b.ResponseKeys()
	if _, err := i.Finish(good, other.Public()); !errors.Is(err, ErrAgreement) {
		t.Errorf("another node answers: %v", err)
	}
	sb, err := base58.Decode(good.ResponderCheck)
	if err != nil {
		t.Fatal(err)
	}
	sb[31] ^= 1
	for name, change := range map[string]func(*Keys){
		"sb empty": func(k *Keys) { k.ResponderCheck = "" }, "sb is sa": func(k *Keys) { k.ResponderCheck = b.RequestKeys().InitiatorCheck },
		"sb not base58": func(k *Keys) { k.ResponderCheck = "0" }, "sb changed": func(k *Keys) { k.ResponderCheck = base58.Encode(sb) },
		"sb short":    func(k *Keys) { k.ResponderCheck = base58.Encode(sb[:31]) },
		"tpo another": func(k *Keys) { k.ResponderEphemeral = other.Public().String() }, "tpo none": func(k *Keys) { k.ResponderEphemeral = "" },
		"pko another": func(k *Keys) { k.Responder = other.Public().String() }, "pko none": func(k *Keys) { k.Responder = "" },
	} {
		k := good
		change(&k)
		for _, asked := range []*identity.PublicKey{nil, key.Public()} {
			if s, err := i.Finish(k, asked); !errors.Is(err, ErrAgreement) || s != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if _, err := i.Finish(good, nil); err != nil {
		t.Errorf("as it was sent: %v", err)
	}
	b.Erase()
	if b.key != [32]byte{} || b.initiatorCheck != (check{}) || b.responderCheck != (check{}) {
		t.Error("an erased session holds secrets")
	}
	zeros := base58.Encode(make([]byte, 32))
	if k := (Keys{InitiatorCheck: zeros, ResponderCheck: zeros, CallbackCheck: zeros}); b.IsRequest(k) || b.IsResponse(k) || b.IsCallback(k) {
		t.Error("an erased session recognises zeros")
	}
}
