package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	// minPassphrase is the fewest bytes of a new passphrase. It stops typing
	// errors and "abc", not bad ideas.
	minPassphrase = 8
	// maxPassphrase is far above what anybody types.
	maxPassphrase = 4096
)

// A passphraseSource is a file or, without one, the terminal. A passphrase
// never comes from an argument or the environment: other programs of the same
// machine can read those.
type passphraseSource struct {
	console *console
	file    string
	noun    string // what errors and questions call it; "" is passphrase
}

func (s passphraseSource) what() string { return cmp.Or(s.noun, "passphrase") }

// existing returns the passphrase of a key that exists.
func (s passphraseSource) existing(ctx context.Context, what string) ([]byte, error) {
	if s.file != "" {
		return readSecretFile(s.file, s.what())
	}
	if !s.console.interactive() {
		return nil, errors.New("is encrypted, and there is no terminal to ask for its passphrase: give --passphrase-file")
	}
	p, err := s.console.readSecret(ctx, fmt.Sprintf("Passphrase for %s: ", what))
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	if len(p) == 0 {
		return nil, errors.New("no passphrase was given")
	}
	return p, nil
}

// fresh returns the passphrase for a new key, asked for twice.
func (s passphraseSource) fresh(ctx context.Context) ([]byte, error) {
	if s.file != "" {
		p, err := readSecretFile(s.file, s.what())
		if err != nil {
			return nil, err
		}
		return p, s.checkNew(p)
	}
	if !s.console.interactive() {
		return nil, fmt.Errorf("there is no terminal to ask for a %s: give --%[1]s-file", s.what())
	}
	first, err := s.console.readSecret(ctx, fmt.Sprintf("New %s (at least %d characters): ", s.what(), minPassphrase))
	if err != nil {
		return nil, fmt.Errorf("reading the %s: %w", s.what(), err)
	}
	if err := s.checkNew(first); err != nil {
		return nil, err
	}
	second, err := s.console.readSecret(ctx, "The same again: ")
	if err != nil {
		return nil, fmt.Errorf("reading the %s: %w", s.what(), err)
	}
	defer clear(second)
	if subtle.ConstantTimeCompare(first, second) != 1 {
		clear(first)
		return nil, fmt.Errorf("the two %ss differ: nothing was done", s.what())
	}
	return first, nil
}

func (s passphraseSource) checkNew(p []byte) error {
	switch {
	case len(p) < minPassphrase:
		return fmt.Errorf("the %s is too short: at least %d characters", s.what(), minPassphrase)
	case len(p) > maxPassphrase:
		return fmt.Errorf("the %s is too long: at most %d bytes", s.what(), maxPassphrase)
	}
	return nil
}

// readSecretFile reads the one line of a file. A pipe is fine, as in
// --passphrase-file <(pass show owtp); a file that others can read is not.
func readSecretFile(path, what string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the %s: %w", what, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading the %s: %w", what, err)
	}
	if info.Mode().IsRegular() {
		if err := checkPrivate(f); err != nil {
			return nil, fmt.Errorf("the %s file is refused: %w", what, err)
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPassphrase+3))
	if err != nil {
		return nil, fmt.Errorf("reading the %s: %w", what, err)
	}
	line := bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
	switch {
	case len(line) == 0:
		return nil, fmt.Errorf("%s file %s is empty", what, path)
	case len(line) > maxPassphrase:
		return nil, fmt.Errorf("%s file %s is too long: at most %d bytes", what, path, maxPassphrase)
	case bytes.ContainsAny(line, "\r\n"):
		return nil, fmt.Errorf("%s file %s has more than one line", what, path)
	}
	return line, nil
}
