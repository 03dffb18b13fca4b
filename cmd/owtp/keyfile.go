package main

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/emmansun/gmsm/sm2"
	"github.com/emmansun/gmsm/smx509"

	"github.com/owtp-go/owtp/identity"
)

const (
	pemPlain     = "PRIVATE KEY"
	pemEncrypted = "ENCRYPTED PRIVATE KEY"

	// maxKeyFile bounds what is read as a key: a real one is below 1 KiB.
	maxKeyFile = 64 << 10
)

// errWrongPassphrase is all that can be said when an encrypted key does not
// open: the format has no way to tell a wrong passphrase from damage.
var errWrongPassphrase = errors.New("the passphrase is wrong or the file is damaged")

// encodeKey returns the key as PEM (PKCS#8), encrypted if there is a
// passphrase.
func encodeKey(key *identity.PrivateKey, passphrase []byte) ([]byte, error) {
	return encodeKeyAt(scryptCost, key, passphrase)
}

// encodeKeyAt is encodeKey at a cost that tests can afford.
func encodeKeyAt(cost int, key *identity.PrivateKey, passphrase []byte) ([]byte, error) {
	scalar := key.Bytes()
	defer clear(scalar)
	priv, err := sm2.NewPrivateKey(scalar)
	if err != nil {
		return nil, err
	}
	der, err := smx509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	if passphrase == nil {
		return pem.EncodeToMemory(&pem.Block{Type: pemPlain, Bytes: der}), nil
	}
	sealed, err := encryptPKCS8(der, passphrase, cost)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemEncrypted, Bytes: sealed}), nil
}

// decodeKey reads what encodeKey writes, and SM2 keys that other programs wrote
// as PKCS#8. ask is called for the passphrase only if the key is encrypted.
// Errors never repeat any of the text.
func decodeKey(text []byte, ask func() ([]byte, error)) (*identity.PrivateKey, error) {
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, errors.New("is not a PEM file: a key file starts with -----BEGIN PRIVATE KEY----- (owtp keygen makes one)")
	}
	defer clear(block.Bytes)
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("has something after the key: one file holds one key")
	}
	switch block.Type {
	case pemPlain:
		return parsePKCS8(block.Bytes)
	case pemEncrypted:
		if err := checkEncryption(block.Bytes); err != nil {
			return nil, err
		}
		passphrase, err := ask()
		if err != nil {
			return nil, err
		}
		defer clear(passphrase)
		der, err := decryptPKCS8(block.Bytes, passphrase)
		if err != nil {
			return nil, errWrongPassphrase
		}
		defer clear(der)
		key, err := parsePKCS8(der)
		if err != nil {
			// A wrong passphrase gives valid padding once in 256 times, and
			// then rubbish.
			return nil, errWrongPassphrase
		}
		return key, nil
	case "EC PRIVATE KEY", "SM2 PRIVATE KEY":
		return nil, errors.New("holds a SEC 1 key: turn it into PKCS#8 with openssl pkcs8 -topk8")
	}
	return nil, fmt.Errorf("holds %.40q, want %q or %q", block.Type, pemPlain, pemEncrypted)
}

// writeKeyFile writes a new key file that only its owner can read. It never
// overwrites, and leaves nothing behind when it fails.
func writeKeyFile(path string, key *identity.PrivateKey, passphrase []byte) error {
	text, err := encodeKey(key, passphrase)
	if err != nil {
		return err
	}
	defer clear(text)
	f, err := createNew(path, "key file")
	if err != nil {
		return err
	}
	if err := writeAll(f, text); err != nil {
		os.Remove(path)
		return fmt.Errorf("writing the key to %s: %w", path, err)
	}
	return nil
}

// writeAll writes, makes sure that it is on the disk, and closes.
func writeAll(f *os.File, b []byte) error {
	_, err := f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// readKeyFile reads a key file, unless others can read it as well.
func readKeyFile(path string, ask func() ([]byte, error)) (*identity.PrivateKey, error) {
	// O_NONBLOCK, so that a named pipe is refused instead of waited for.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	defer f.Close()
	if err := checkPrivate(f); err != nil {
		return nil, fmt.Errorf("the key file is refused: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	defer clear(text)
	if len(text) > maxKeyFile {
		return nil, fmt.Errorf("key file %s is larger than %d bytes: that is no key", path, maxKeyFile)
	}
	key, err := decodeKey(text, ask)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return key, nil
}
