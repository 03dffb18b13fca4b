package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxParams bounds what is read as parameters. A node refuses far smaller ones;
// this only keeps the tool from reading an endless pipe.
const maxParams = 64 << 20

// readParams returns the parameters of a call: the argument itself, a file
// named after @, or standard input for "-". None are null.
func readParams(c *console, args []string) (json.RawMessage, error) {
	if len(args) == 0 {
		return json.RawMessage("null"), nil
	}
	text, from := []byte(args[0]), theArgument
	var err error
	switch {
	case args[0] == "-":
		from = "standard input"
		text, err = readBounded(c.in, maxParams)
	case strings.HasPrefix(args[0], "@"):
		from = args[0][1:]
		var f *os.File
		if f, err = os.Open(from); err == nil {
			text, err = readBounded(f, maxParams)
			f.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading the parameters from %s: %w", from, err)
	}
	hint := ""
	if from == theArgument {
		hint = `; quote JSON for the shell, as in '{"name":"chance"}'`
	}
	return checkJSON(text, from, hint)
}

const theArgument = "the argument"

func checkJSON(text []byte, from, hint string) (json.RawMessage, error) {
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return nil, fmt.Errorf("%s is empty: write null to send nothing", from)
	}
	var raw json.RawMessage
	err := json.Unmarshal(text, &raw)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		where := ""
		if at := syntax.Offset - 1; at >= 0 && at < int64(len(text))-1 {
			where = fmt.Sprintf(", at %.30q", printable(string(text[at:])))
		}
		return nil, fmt.Errorf("%s is not JSON: %w%s%s", from, err, where, hint)
	}
	return raw, err
}

func readBounded(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	return b, err
}
