package main

import (
	"bytes"
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
}

// existing returns the passphrase of a key that exists.
func (s passphraseSource) existing(ctx context.Context, what string) ([]byte, error) {
	if s.file != "" {
		return readPassphraseFile(s.file)
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
		p, err := readPassphraseFile(s.file)
		if err != nil {
			return nil, err
		}
		return p, checkNewPassphrase(p)
	}
	if !s.console.interactive() {
		return nil, errors.New("there is no terminal to ask for a passphrase: give --passphrase-file")
	}
	first, err := s.console.readSecret(ctx, fmt.Sprintf("New passphrase (at least %d characters): ", minPassphrase))
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	if err := checkNewPassphrase(first); err != nil {
		return nil, err
	}
	second, err := s.console.readSecret(ctx, "The same again: ")
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	defer clear(second)
	if subtle.ConstantTimeCompare(first, second) != 1 {
		clear(first)
		return nil, errors.New("the two passphrases differ: nothing was written")
	}
	return first, nil
}

func checkNewPassphrase(p []byte) error {
	switch {
	case len(p) < minPassphrase:
		return fmt.Errorf("the passphrase is too short: at least %d characters", minPassphrase)
	case len(p) > maxPassphrase:
		return fmt.Errorf("the passphrase is too long: at most %d bytes", maxPassphrase)
	}
	return nil
}

// readPassphraseFile reads the one line of a file. A pipe is fine, as in
// --passphrase-file <(pass show owtp); a file that others can read is not.
func readPassphraseFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	if info.Mode().IsRegular() {
		if err := checkPrivate(f); err != nil {
			return nil, fmt.Errorf("the passphrase file is refused: %w", err)
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPassphrase+3))
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	line := bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
	switch {
	case len(line) == 0:
		return nil, fmt.Errorf("passphrase file %s is empty", path)
	case len(line) > maxPassphrase:
		return nil, fmt.Errorf("passphrase file %s is too long: at most %d bytes", path, maxPassphrase)
	case bytes.ContainsAny(line, "\r\n"):
		return nil, fmt.Errorf("passphrase file %s has more than one line", path)
	}
	return line, nil
}
