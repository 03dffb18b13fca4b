package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/codec"
	"github.com/owtp-go/owtp/identity"
)

type verifyOptions struct {
	signer string
	json   bool
}

func newVerifyCommand(c *console) *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check saved evidence, offline",
		Long: `Checks what owtp call --sign --save has kept: a signed call and the signed
answer to it. Nothing but the file is needed, no network and no key.

It prints who signed, for whom, when and what. An ID says which key signed, not
whose key that is: compare it, or give the expected ID after --signer.`,
		Example: `  owtp verify order.proof
  owtp verify order.proof --signer 5Hue...    # the answer must be this node's
  owtp verify order.proof --json | jq .response.data`,
		Args: arguments(1, 1, "a file with evidence, or - for standard input"),
		RunE: func(cmd *cobra.Command, args []string) error { return verify(c, args[0], o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.signer, "signer", "", "node `ID` that must have signed the answer")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func verify(c *console, path string, o verifyOptions) error {
	if o.signer != "" {
		if _, err := identity.ParseID(o.signer); err != nil {
			return fmt.Errorf("--signer: %w", err)
		}
	}
	raw, err := readEvidence(c, path)
	if err != nil {
		return err
	}
	ev, err := owtp.VerifyEvidence(raw)
	if err != nil {
		return withCode(exitTrust, "the evidence does not verify: %w", err)
	}
	if o.signer != "" && (ev.Response == nil || ev.Response.SignerID != o.signer) {
		who := "nobody"
		if ev.Response != nil {
			who = ev.Response.SignerID
		}
		return withCode(exitTrust, "the answer is signed by %s, not by %s", who, o.signer)
	}
	if o.json {
		return printEvidenceJSON(c, ev)
	}
	printPacket(c.out, "Request", ev.Request)
	printPacket(c.out, "Response", ev.Response)
	verdict := "Verified: the signatures are good, and the response belongs to the request."
	if ev.Response == nil {
		verdict = "Verified: the signature is good. There is no response to it here."
	}
	_, err = fmt.Fprintln(c.out, verdict)
	return err
}

func printPacket(w io.Writer, title string, p *owtp.SignedPacket) {
	if p == nil {
		return
	}
	line := func(name, value string) { fmt.Fprintf(w, "  %-10s %s\n", name, printable(value)) }
	fmt.Fprintln(w, title)
	line("signed by", p.SignerID)
	line("for", p.RecipientID)
	line("when", p.Time.Format(time.RFC3339Nano))
	line("method", p.Method)
	line("way", p.Transport+", "+p.Mode)
	if p.Kind == "response" {
		line("status", fmt.Sprintf("%d %s", p.Status, p.Msg))
	}
	text, err := dataJSON(p.Format, p.Data)
	if err != nil {
		text = base64.StdEncoding.AppendEncode(nil, p.Data)
	}
	if p.Format != codec.NameJSON {
		line("format", p.Format)
	}
	line("data", string(text))
}

// packetJSON is what --json prints of one packet.
type packetJSON struct {
	Signer    string          `json:"signer"`
	Recipient string          `json:"recipient"`
	Time      time.Time       `json:"time"`
	Method    string          `json:"method"`
	Transport string          `json:"transport"`
	Mode      string          `json:"mode"`
	Status    *uint64         `json:"status,omitempty"`
	Msg       string          `json:"msg,omitempty"`
	Format    string          `json:"format"`
	Data      json.RawMessage `json:"data"`
}

func packetForJSON(p *owtp.SignedPacket) *packetJSON {
	if p == nil {
		return nil
	}
	out := &packetJSON{
		Signer: p.SignerID, Recipient: p.RecipientID, Time: p.Time, Method: p.Method,
		Transport: p.Transport, Mode: p.Mode, Msg: p.Msg, Format: p.Format, Data: p.Data,
	}
	if p.Kind == "response" {
		out.Status = &p.Status
	}
	if p.Format != codec.NameJSON {
		out.Data, _ = json.Marshal(p.Data) // another format, as base64
	}
	return out
}

func printEvidenceJSON(c *console, ev *owtp.Evidence) error {
	raw, err := marshalPlain(map[string]*packetJSON{
		"request": packetForJSON(ev.Request), "response": packetForJSON(ev.Response),
	})
	if err != nil {
		return err
	}
	return c.printJSON(raw)
}
