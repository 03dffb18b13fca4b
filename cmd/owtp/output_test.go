package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/codec"
)

// TestHostileText has a peer that wants to write on the caller's terminal.
func TestHostileText(t *testing.T) {
	hostile := "\"a\\u001b[2J\u009b2J\u202etxt\x7f\""
	var out bytes.Buffer
	c := &console{in: strings.NewReader(""), out: &out, err: &out}
	if err := c.printJSON([]byte(hostile)); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\u009b\u202e\x7f") {
		t.Errorf("it is printed as it is: %q", out.String())
	}
	var before, after string
	if err := errors.Join(json.Unmarshal([]byte(hostile), &before), json.Unmarshal(out.Bytes(), &after)); err != nil || before != after {
		t.Errorf("%q became %q: %v", before, after, err)
	}
	if got := printable("a\x1b[2J\nb\u202ec\xff\td"); strings.ContainsAny(got, "\x1b\n\u202e") || !strings.Contains(got, "\t") {
		t.Errorf("got %q", got)
	}
}

func TestNumbersStay(t *testing.T) {
	const raw = `{"n":12345678901234567890.000,"z":1e400,"a":"<&>"}`
	var out bytes.Buffer
	c := &console{in: strings.NewReader(""), out: &out, err: &out}
	full, err := fullJSON(&owtp.Response{Status: 200, Msg: "<ok>", Result: json.RawMessage(raw)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.printJSON(full); err != nil {
		t.Fatal(err)
	}
	if want := `{"status":200,"msg":"<ok>","result":` + raw + "}\n"; out.String() != want {
		t.Errorf("got  %s\nwant %s", out.String(), want)
	}
}

func TestExitCodes(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{errors.New("a file is missing"), exitUsage},
		{owtp.ErrTrust, exitTrust},
		{fmt.Errorf("wrapped: %w", owtp.ErrTrust), exitTrust},
		{&owtp.Error{Status: owtp.ErrNetworkDisconnected}, exitConnect},
		{&owtp.Error{Status: owtp.ErrRequestTimeout}, exitConnect},
		{&owtp.Error{Status: owtp.ErrRequestTimeout, MayHaveRun: true}, exitUnknown},
		{&owtp.Error{Status: owtp.ErrNetworkDisconnected, MayHaveRun: true}, exitUnknown},
		{&owtp.Error{Status: owtp.ErrOutcomeUnknown}, exitUnknown},
		{&owtp.Error{Status: owtp.ErrBadRequest}, exitUsage},
		{&owtp.Error{Status: owtp.ErrTooLarge}, exitUsage},
		{&owtp.Error{Status: owtp.ErrReplayAttack, Proved: true}, exitStatus},
		{&owtp.Error{Status: owtp.ErrDenialOfService}, exitConnect},
	} {
		if got := exitCode(classify(tc.err)); got != tc.want {
			t.Errorf("%v: exit code %d, want %d", tc.err, got, tc.want)
		}
	}
}

// What a peer says against a call stays on the line that says so, wherever it
// comes from: it must not look like this program's advice.
func TestPeersWriteNoLines(t *testing.T) {
	said := &owtp.Error{Status: 600, Msg: "no\r\nRun this: \x1b[2Jcurl evil\u202e", PeerID: "somebody"}
	for what, err := range map[string]error{
		"a call": classify(said), "a connection": classifyConnect(said), "outcome unknown": classifyConnect(&owtp.Error{Status: 600, Msg: said.Msg, MayHaveRun: true}),
		"trust": classify(fmt.Errorf("%w: %w", owtp.ErrTrust, said)), "advice": new(caller).callError(said),
	} {
		text := err.Error()
		if strings.ContainsAny(text, "\r\n\x1b\u202e") || !strings.Contains(text, "curl evil") || owtp.StatusOf(err) != 600 {
			t.Errorf("%s: %q", what, text)
		}
	}
}

// An error that names the option for old packets names the flag, too, and keeps its
// exit code.
func TestOldPacketsNameTheFlag(t *testing.T) {
	c := &caller{timeout: time.Second}
	for text, want := range map[string]bool{"ConnectConfig.InsecureV1PacketVersion0 calls it": true, "something else": false} {
		err := c.within(t.Context(), func(context.Context) error {
			return classifyConnect(&owtp.Error{Status: owtp.ErrResponseMethodDiffer, Msg: text})
		})
		if strings.Contains(err.Error(), "--insecure-v1-packet-version-0") != want || exitCode(err) != exitConnect {
			t.Errorf("%q: %v, exit code %d", text, err, exitCode(err))
		}
	}
	if err := c.within(t.Context(), func(context.Context) error { return nil }); err != nil {
		t.Error(err)
	}
}

// A result that this program cannot read is not shown as null.
func TestResultThatCannotBeShown(t *testing.T) {
	message := []byte("\x52\x0a\x0a\x08shop.Cow")
	resp := &owtp.Response{Status: 200, Result: codec.Raw{Format: codec.NameProtobuf, Data: message}}
	if text, err := resultJSON(resp); err == nil || !strings.Contains(err.Error(), "shop.Cow") {
		t.Errorf("shown as %s, %v", text, err)
	}
	if text, err := fullJSON(resp, nil); err == nil {
		t.Errorf("shown as %s", text)
	}
}
