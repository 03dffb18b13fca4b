package main

import (
	"bytes"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/owtp-go/owtp/identity"
)

func newKey(t testing.TB) *identity.PrivateKey {
	t.Helper()
	key, err := identity.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

const cheap = 1 << 10

func noPassphrase() ([]byte, error) { return nil, errors.New("nobody may be asked") }

func TestKeyFileRoundTrip(t *testing.T) {
	key := newKey(t)
	path := filepath.Join(t.TempDir(), "node.pem")
	if err := writeKeyFile(path, key, nil); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if hasModeBits && info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %04o", info.Mode().Perm())
	}
	got, err := readKeyFile(path, noPassphrase)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID() != key.ID() {
		t.Errorf("read %s, wrote %s", got.ID(), key.ID())
	}
	if err := writeKeyFile(path, newKey(t), nil); err == nil || !strings.Contains(err.Error(), "never overwritten") {
		t.Errorf("overwriting: %v", err)
	}
	if got, err := readKeyFile(path, noPassphrase); err != nil || got.ID() != key.ID() {
		t.Errorf("the old key is gone: %v", err)
	}
}

func TestEncryptedKeyRoundTrip(t *testing.T) {
	key := newKey(t)
	text, err := encodeKeyAt(cheap, key, []byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeKey(text, func() ([]byte, error) { return []byte("correct horse"), nil })
	if err != nil || got.ID() != key.ID() {
		t.Errorf("read again: %v", err)
	}
}

func TestWrongPassphrase(t *testing.T) {
	text, err := encodeKeyAt(cheap, newKey(t), []byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = decodeKey(text, func() ([]byte, error) { return []byte("battery staple"), nil })
	if !errors.Is(err, errWrongPassphrase) {
		t.Errorf("got %v", err)
	}
	_, err = decodeKey(text, noPassphrase)
	if err == nil || !strings.Contains(err.Error(), "nobody may be asked") {
		t.Errorf("got %v", err)
	}
}

// TestDamagedKey changes every byte of a key in turn: it must be refused or be
// the same key, never another one.
func TestDamagedKey(t *testing.T) {
	key := newKey(t)
	text, err := encodeKey(key, nil)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	for i := range block.Bytes {
		der := bytes.Clone(block.Bytes)
		der[i] ^= 0x55
		got, err := parsePKCS8(der)
		if err == nil && got.ID() != key.ID() {
			t.Errorf("with byte %d changed it is another key", i)
		}
	}
}

// TestDamagedEncryption changes every byte outside of the ciphertext: none may
// make the tool panic or take the machine.
func TestDamagedEncryption(t *testing.T) {
	text, err := encodeKeyAt(cheap, newKey(t), []byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	refused := 0
	for i := range block.Bytes {
		for _, change := range []byte{1, 0x80} {
			der := bytes.Clone(block.Bytes)
			der[i] ^= change
			if checkEncryption(der) != nil {
				refused++
			}
		}
	}
	if refused == 0 {
		t.Error("no change was noticed")
	}
	for n := range block.Bytes {
		if checkEncryption(block.Bytes[:n]) == nil {
			t.Errorf("cut off after %d bytes it is accepted", n)
		}
	}
}

func TestForeignKeyFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/keys/*.pem")
	if err != nil || len(files) == 0 {
		t.Fatalf("no key files to try: %v", err)
	}
	want := map[string]string{
		"openssl-sm2.pem":        "Ra4MVzfkAHeTTtNrJyHqBrM43p2UxrTi2i9kduxECm7",
		"openssl-sm2-pbkdf2.pem": "Ra4MVzfkAHeTTtNrJyHqBrM43p2UxrTi2i9kduxECm7",
		"openssl-sm2-scrypt.pem": "Ra4MVzfkAHeTTtNrJyHqBrM43p2UxrTi2i9kduxECm7",
		"openssl-sm2-sm4.pem":    "Ra4MVzfkAHeTTtNrJyHqBrM43p2UxrTi2i9kduxECm7",
		"openssl-sm2-des3.pem":   "not supported",
		"openssl-p256.pem":       "another kind",
		"openssl-rsa.pem":        "another kind",
		"openssl-sec1.pem":       "openssl pkcs8 -topk8",
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		key, err := decodeKey(text, func() ([]byte, error) { return []byte("correct horse"), nil })
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = key.ID().String()
		}
		expected, ok := want[filepath.Base(file)]
		if !ok || !strings.Contains(got, expected) {
			t.Errorf("%s: got %q, want %q", file, got, expected)
		}
	}
	if len(files) != len(want) {
		t.Errorf("%d files for %d expectations", len(files), len(want))
	}
}

func TestKeyFileOfOthers(t *testing.T) {
	if !hasModeBits {
		t.Skip("this system's modes say nothing")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "node.pem")
	if err := writeKeyFile(path, newKey(t), nil); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.pem")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o602, 0o644, 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{path, link} {
			if _, err := readKeyFile(name, noPassphrase); err == nil || !strings.Contains(err.Error(), "chmod 600") {
				t.Errorf("%s with mode %04o: %v", filepath.Base(name), mode, err)
			}
		}
	}
	for _, mode := range []fs.FileMode{0o600, 0o400} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := readKeyFile(link, noPassphrase); err != nil {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	if _, err := readKeyFile(dir, noPassphrase); err == nil {
		t.Error("a folder was read as a key")
	}
}

func FuzzDecodeKey(f *testing.F) {
	plain, err := encodeKey(newKey(f), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	files, _ := filepath.Glob("testdata/keys/*.pem")
	if len(files) == 0 {
		f.Fatal("no seeds")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		// Without a passphrase, so that nothing is derived: that is slow and
		// not ours.
		key, err := decodeKey(text, noPassphrase)
		if err != nil {
			return
		}
		again, err := encodeKey(key, nil)
		if err != nil {
			t.Fatal(err)
		}
		same, err := decodeKey(again, noPassphrase)
		if err != nil || same.ID() != key.ID() {
			t.Fatalf("written and read again: %v", err)
		}
	})
}
