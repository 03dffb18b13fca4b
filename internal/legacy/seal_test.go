package legacy

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/mr-tron/base58"
)

type sealedVector struct {
	Note    string `json:"note"`
	Key     string `json:"agreed_key_hex"`
	Nonce   string `json:"nonce"`
	Version int64  `json:"v"`
	HMACKey string `json:"hmac_key_hex"`
	Text    string `json:"plaintext"`
	Sealed  string `json:"ciphertext_base64"`
	Data    string `json:"d"`
	Result  string `json:"reference_result"`
}

func (c *sealedVector) session(t testing.TB) (*Session, uint64) {
	t.Helper()
	nonce, err := strconv.ParseUint(c.Nonce, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	s := &Session{live: true}
	if copy(s.key[:], unhex(t, c.Key)) != len(s.key) {
		t.Fatal(c.Note, "a short key")
	}
	return s, nonce
}

func readSealed(t testing.TB) (cases, junk []sealedVector) {
	var v struct {
		Cases []sealedVector `json:"cases"`
		Junk  []sealedVector `json:"decryption_of_junk"`
	}
	readVectors(t, "encryption.json", &v)
	if len(v.Cases) != 24 || len(v.Junk) != 10 {
		t.Fatalf("%d cases and %d of junk", len(v.Cases), len(v.Junk))
	}
	return v.Cases, v.Junk
}

func TestSealedVectors(t *testing.T) {
	cases, _ := readSealed(t)
	for _, c := range cases {
		s, nonce := c.session(t)
		if c.Version == 1 && hex.EncodeToString(nonceKey(nonce)) != c.HMACKey {
			t.Errorf("%s: the HMAC key is %x", c.Note, nonceKey(nonce))
		}
		// What lies behind the text in its array is somebody else's.
		text := append([]byte(c.Text), "behind it, and more than a block"...)[:len(c.Text)]
		sealed, err := s.Seal(text, c.Version, nonce)
		if err != nil || sealed != c.Sealed || !bytes.HasPrefix(text[len(text):cap(text)], []byte("behind it, and more than a block")) {
			t.Errorf("%s: sealed as %s: %v", c.Note, sealed, err)
		}
		opened, err := s.Open(c.Sealed, c.Version, nonce)
		if err != nil || string(opened) != c.Text {
			t.Errorf("%s: opens as %q: %v", c.Note, opened, err)
		}
	}
}

// The reference takes most of this, and two panic it.
func TestJunkDoesNotOpen(t *testing.T) {
	_, junk := readSealed(t)
	taken, closed := 0, 0
	for _, c := range junk {
		s, nonce := c.session(t)
		opened, err := s.Open(c.Data, c.Version, nonce)
		if c.Data == "" {
			if taken++; err != nil || len(opened) != 0 {
				t.Errorf("%s: %q: %v", c.Note, opened, err)
			}
			continue
		}
		if strings.HasPrefix(c.Result, "ok") || strings.HasPrefix(c.Result, "panic") {
			closed++
		}
		if err != ErrOpen || opened != nil {
			t.Errorf("%s: %q: %v", c.Note, opened, err)
		}
	}
	if taken != 1 || closed != 8 {
		t.Errorf("%d taken, %d refused that the reference takes or dies of", taken, closed)
	}
}

// Every error is the same one, wherever the text was changed.
func TestErrorsOfOpenAreUniform(t *testing.T) {
	cases, _ := readSealed(t)
	c := cases[0]
	s, nonce := c.session(t)
	sealed, err := base64.StdEncoding.DecodeString(c.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for i := range sealed {
		for bit := range 8 {
			sealed[i] ^= 1 << bit
			opened, err := s.Open(base64.StdEncoding.EncodeToString(sealed), c.Version, nonce)
			if string(opened) == c.Text {
				t.Fatal("changed, and opens as before")
			}
			if err != nil {
				if refused++; err != ErrOpen || err.Error() != ErrOpen.Error() {
					t.Fatal(err)
				}
			}
			sealed[i] ^= 1 << bit
		}
	}
	if refused == 0 {
		t.Error("no change was noticed")
	}
	for _, data := range []string{c.Sealed + "\n", c.Sealed[:8] + "\r\n" + c.Sealed[8:], c.Sealed[1:], c.Sealed + "====", strings.TrimRight(c.Sealed, "="), " " + c.Sealed, "AAAA", "\x00"} {
		if _, err := s.Open(data, c.Version, nonce); err != ErrOpen {
			t.Errorf("%q: %v", data, err)
		}
	}
	s.Erase()
	if _, err := s.Open(c.Sealed, c.Version, nonce); err == nil {
		t.Error("opened after the key was erased")
	}
	if sealed, err := s.Seal([]byte("x"), 0, 1); err == nil || sealed != "" {
		t.Error("sealed under the key of zeros")
	}
}

// Whole exchanges as they were recorded, opened and sealed again.
func TestRecordedConversation(t *testing.T) {
	var v struct {
		Scenarios []struct {
			Name string `json:"name"`
			HTTP []struct {
				Request, Response struct {
					Body      string  `json:"body"`
					Decrypted *string `json:"decrypted_d"`
				}
			} `json:"http"`
		} `json:"scenarios"`
		Server string `json:"server_private"`
	}
	readVectors(t, "transcripts.json", &v)
	server := privateKey(t, v.Server)
	opened, scenarios, strangers := 0, 0, 0
	for _, scenario := range v.Scenarios {
		if !strings.HasPrefix(scenario.Name, "http_keyagreement") {
			continue
		}
		scenarios++
		for _, e := range scenario.HTTP {
			if e.Request.Decrypted == nil || e.Response.Decrypted == nil {
				continue
			}
			request, response := parse(t, e.Request.Body), parse(t, e.Response.Body)
			// The responder's ephemeral is its static key, so every packet
			// can be opened from what stands in it and that key alone.
			s, err := respond(server, server, request.Keys)
			if err != nil {
				t.Fatal(scenario.Name, err)
			}
			if request.Keys.InitiatorCheck != "" && !s.IsRequest(request.Keys) {
				strangers++
			}
			if !s.IsResponse(response.Keys) {
				t.Errorf("%s: the response is not of the session", scenario.Name)
			}
			for p, want := range map[*Packet]string{request: *e.Request.Decrypted, response: *e.Response.Decrypted} {
				data, err := p.Text()
				if err != nil {
					t.Fatal(err)
				}
				text, err := s.Open(data, p.Version, p.Nonce)
				if err != nil || string(text) != want {
					t.Errorf("%s: opens as %q: %v", scenario.Name, text, err)
				}
				if again, err := s.Seal(text, p.Version, p.Nonce); err != nil || again != data {
					t.Errorf("%s: sealed as %q: %v", scenario.Name, again, err)
				}
				opened++
			}
		}
	}
	if strangers != 1 { // http_keyagreement_no_state tries a wrong sa once
		t.Errorf("%d requests have a wrong sa", strangers)
	}
	if opened < 10 {
		t.Fatalf("%d packets opened in %d scenarios", opened, scenarios)
	}
}

// The same over a broker, where every packet carries all that its key is made of.
func TestRecordedQueueConversation(t *testing.T) {
	var v struct {
		Server    string `json:"server_private"`
		Scenarios []struct {
			Name   string
			Agreed []string `json:"agreed_keys"`
			Frames []struct {
				Body string
			} `json:"server_connection"`
		}
	}
	readVectors(t, "transcripts_mq.json", &v)
	server := privateKey(t, v.Server)
	sessions, opened := 0, 0
	for _, scenario := range v.Scenarios {
		if scenario.Agreed == nil {
			continue
		}
		var s *Session
		for _, frame := range scenario.Frames {
			if frame.Body == "" {
				continue
			}
			p := parse(t, frame.Body)
			if p.Kind == Request {
				var err error
				if s, err = respond(server, server, p.Keys); err != nil {
					t.Fatal(scenario.Name, err)
				}
				if sessions++; base58.Encode(s.key[:]) != scenario.Agreed[0] || p.Keys.InitiatorCheck != "" && !s.IsRequest(p.Keys) {
					t.Errorf("%s: another key is agreed on", scenario.Name)
				}
			} else if !s.IsResponse(p.Keys) {
				t.Errorf("%s: the response is not of the session", scenario.Name)
			}
			data, err := p.Text()
			if err != nil || data == "" {
				continue
			}
			text, err := s.Open(data, p.Version, p.Nonce)
			if err != nil {
				t.Errorf("%s: %s does not open: %v", scenario.Name, frame.Body, err)
			}
			if again, err := s.Seal(text, p.Version, p.Nonce); err != nil || again != data {
				t.Errorf("%s: sealed as %q: %v", scenario.Name, again, err)
			}
			opened++
		}
	}
	if sessions != 2 || opened != 3 {
		t.Fatalf("%d requests under an agreement, %d packets opened", sessions, opened)
	}
}

// Data opens only if it is what somebody with the key could have sealed.
func FuzzOpen(f *testing.F) {
	cases, junk := readSealed(f)
	s, _ := cases[0].session(f)
	for _, c := range cases {
		f.Add(c.Sealed, c.Version, uint64(1))
	}
	for _, c := range junk {
		f.Add(c.Data, c.Version, uint64(1))
	}
	f.Fuzz(func(t *testing.T, data string, version int64, nonce uint64) {
		text, err := s.Open(data, version, nonce)
		if err != nil {
			if !errors.Is(err, ErrOpen) || text != nil {
				t.Fatal(text, err)
			}
			return
		}
		if again, err := s.Seal(text, version, nonce); err != nil || again != data && data != "" && len(text) > 0 {
			t.Fatalf("%q opens as %q, which is sealed as %q: %v", data, text, again, err)
		}
	})
}
