package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/lockedfile"

	"github.com/owtp-go/owtp/identity"
)

// maxKnownPeers bounds what is read as known peers: some hundred thousand lines.
const maxKnownPeers = 16 << 20

// knownPeers is a file like SSH's known hosts: one line a peer,
//
//	address nodeID [comment]
//
// with empty lines and lines that start with # left as they are. Whoever can
// change the file decides whom this machine trusts, so it is private, and a
// line that cannot be read stops everything instead of being skipped: a
// skipped pin would be a pin lost without a word.
type knownPeers struct{ path string }

// A knownPeer is one line of the file.
type knownPeer struct {
	address string
	id      identity.ID
	comment string
}

// A peerLine is a line as it stands in the file and, if it pins, the peer.
type peerLine struct {
	text string
	peer *knownPeer
}

// list returns the peers in the order of the file. A missing file has none.
func (k knownPeers) list() ([]knownPeer, error) {
	lines, err := k.read()
	if err != nil {
		return nil, err
	}
	var peers []knownPeer
	for _, l := range lines {
		if l.peer != nil {
			peers = append(peers, *l.peer)
		}
	}
	return peers, nil
}

// find returns the ID that is pinned for an address.
func (k knownPeers) find(a peerAddress) (id identity.ID, ok bool, err error) {
	peers, err := k.list()
	if err != nil {
		return id, false, err
	}
	for _, p := range peers {
		if p.address == a.String() {
			return p.id, true, nil
		}
	}
	return id, false, nil
}

// pin adds a line. An address that is pinned to the same ID stays as it is,
// and one that is pinned to another ID is refused: to change a pin somebody has
// to forget the old one first.
func (k knownPeers) pin(a peerAddress, id identity.ID, comment string) error {
	if err := checkComment(comment); err != nil {
		return err
	}
	return k.update(func(lines []peerLine) ([]peerLine, error) {
		for _, l := range lines {
			if l.peer == nil || l.peer.address != a.String() {
				continue
			}
			if l.peer.id == id {
				return nil, nil
			}
			return nil, withCode(exitTrust, "%s is pinned to %s in %s, not to %s: if the peer really has a new key, run owtp peers forget %[1]s first", a, l.peer.id, k.path, id)
		}
		text := strings.TrimSpace(a.String() + " " + id.String() + " " + comment)
		return append(lines, peerLine{text: text}), nil
	})
}

// checkComment refuses what would be more than a comment in the file.
func checkComment(comment string) error {
	if strings.ContainsAny(comment, "\r\n") {
		return errors.New("a comment is one line")
	}
	return nil
}

// forget removes the line of an address.
func (k knownPeers) forget(a peerAddress) error {
	return k.update(func(lines []peerLine) ([]peerLine, error) {
		kept := lines[:0:0]
		for _, l := range lines {
			if l.peer == nil || l.peer.address != a.String() {
				kept = append(kept, l)
			}
		}
		if len(kept) == len(lines) {
			return nil, fmt.Errorf("%s is not in %s: owtp peers list shows what is", a, k.path)
		}
		return kept, nil
	})
}

func (k knownPeers) read() ([]peerLine, error) {
	f, err := os.Open(k.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the known peers: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, fmt.Errorf("reading the known peers: %w", err)
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("the known peers file %s is not a regular file", k.path)
	} else if info.Mode().Perm()&0o022 != 0 && hasModeBits {
		return nil, fmt.Errorf("the known peers file %s can be changed by others (mode %04o): check what is in it, then run chmod 600 %[1]s", k.path, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKnownPeers+1))
	if err != nil {
		return nil, fmt.Errorf("reading the known peers: %w", err)
	}
	if len(text) > maxKnownPeers {
		return nil, fmt.Errorf("the known peers file %s is larger than %d bytes", k.path, maxKnownPeers)
	}
	lines, err := parseKnownPeers(text)
	if err != nil {
		return nil, fmt.Errorf("known peers file %s, %w", k.path, err)
	}
	return lines, nil
}

func parseKnownPeers(text []byte) ([]peerLine, error) {
	var lines []peerLine
	first := map[string]int{} // the line of each address
	for i, raw := range strings.SplitAfter(string(text), "\n") {
		raw = strings.TrimSuffix(raw, "\n")
		if raw == "" && i == bytes.Count(text, []byte("\n")) {
			break // the end, not an empty line
		}
		l := peerLine{text: raw}
		if trimmed := strings.TrimSpace(raw); trimmed != "" && trimmed[0] != '#' {
			p, err := parseKnownPeer(trimmed)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", i+1, err)
			}
			if n, ok := first[p.address]; ok {
				return nil, fmt.Errorf("line %d: %s stands in line %d already: remove one of them", i+1, p.address, n)
			}
			first[p.address] = i + 1
			l.peer = p
		}
		lines = append(lines, l)
	}
	return lines, nil
}

func parseKnownPeer(line string) (*knownPeer, error) {
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return nil, fmt.Errorf("want an address and a node ID, got %.60q", printable(line))
	}
	a, err := parsePeer(fields[0])
	if err != nil {
		return nil, err
	}
	id, err := identity.ParseID(fields[1])
	if err != nil {
		return nil, err
	}
	return &knownPeer{a.String(), id, strings.Join(fields[2:], " ")}, nil
}

// update changes the file as a whole: readers see the old or the new one, and
// of several writers none is lost. edit returns nil lines for no change.
func (k knownPeers) update(edit func([]peerLine) ([]peerLine, error)) error {
	if err := makePrivateDir(k.path); err != nil {
		return err
	}
	// The lock is a file of its own, since the other one is replaced while it
	// is held. It stays: to remove it would let two writers hold "the" lock.
	lock, err := lockedfile.OpenFile(k.path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("locking the known peers: %w", err)
	}
	defer lock.Close()
	lines, err := k.read()
	if err != nil {
		return err
	}
	lines, err = edit(lines)
	if err != nil || lines == nil {
		return err
	}
	var text bytes.Buffer
	for _, l := range lines {
		text.WriteString(l.text + "\n")
	}
	return k.replace(text.Bytes())
}

func (k knownPeers) replace(text []byte) error {
	path := k.path
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // who keeps settings behind a link wants to keep the link
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".known_peers-*") // 0600
	if err != nil {
		return fmt.Errorf("writing the known peers: %w", err)
	}
	defer os.Remove(f.Name()) // gone already when all went well
	if err := writeAll(f, text); err != nil {
		return fmt.Errorf("writing the known peers: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("writing the known peers: %w", err)
	}
	return nil
}
