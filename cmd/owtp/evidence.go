package main

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	pemEvidence = "OWTP EVIDENCE"
	// maxEvidence bounds what is read: two of the largest messages that a node
	// takes by default, in base64, with room.
	maxEvidence = 64 << 20
)

// An evidenceFile is created before the call that fills it.
type evidenceFile struct {
	f    *os.File
	done bool
}

func createEvidence(path string) (*evidenceFile, error) {
	f, err := createNew(path, "evidence")
	if err != nil {
		return nil, err
	}
	return &evidenceFile{f: f}, nil
}

// keep writes the evidence and makes sure that it is on the disk.
func (e *evidenceFile) keep(evidence []byte) error {
	if len(evidence) == 0 {
		return withCode(exitTrust, "the answer carries no signature to keep")
	}
	e.done = true
	if err := writeAll(e.f, pem.EncodeToMemory(&pem.Block{Type: pemEvidence, Bytes: evidence})); err != nil {
		return fmt.Errorf("the call ran, but its evidence could not be kept: %w", err)
	}
	return nil
}

// discard removes the file of a call that left no evidence.
func (e *evidenceFile) discard() {
	if !e.done {
		e.f.Close()
		os.Remove(e.f.Name())
	}
}

// readEvidence reads what keep wrote, from a file or for "-" from standard
// input.
func readEvidence(c *console, path string) ([]byte, error) {
	var text []byte
	var err error
	if path == "-" {
		text, err = readBounded(c.in, maxEvidence)
	} else {
		text, err = readFileBounded(path, maxEvidence)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the evidence: %w", err)
	}
	return decodeEvidence(text)
}

func decodeEvidence(text []byte) ([]byte, error) {
	block, rest := pem.Decode(text)
	switch {
	case block == nil && bytes.Contains(text, []byte("-----BEGIN "+pemEvidence)):
		return nil, withCode(exitTrust, "the evidence is cut off or damaged: its PEM block cannot be read to the end")
	case block == nil:
		return nil, fmt.Errorf("this is no saved evidence: it starts with -----BEGIN %s----- (owtp call --sign --save makes it)", pemEvidence)
	case block.Type != pemEvidence:
		return nil, fmt.Errorf("this PEM file holds %.40q, not %q", block.Type, pemEvidence)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("the file has something after the evidence, which nothing proves: remove it")
	}
	return block.Bytes, nil
}

func readFileBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	return b, err
}
