package atrest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
)

const (
	format   = 1
	saltSize = 32
	tagSize  = 16

	// Overhead is how much longer a record is than its value.
	Overhead = 1 + saltSize + tagSize

	// Label begins the info of a record's key (PROTOCOL.md, appendix A).
	Label = "OWTP/2 at rest\x00"
)

// Seal appends to dst the value, sealed for the place and the purpose:
//
//	1 ‖ salt (32) ‖ ciphertext ‖ tag (16)
//
// Each record has a key of its own, so its nonce is zero. A purpose has no zero
// octet.
func (k *Keys) Seal(dst []byte, random io.Reader, purpose, place string, value []byte) ([]byte, error) {
	begin := len(dst)
	dst = slices.Grow(dst, Overhead+len(value))[:begin+1+saltSize]
	dst[begin] = format
	salt := dst[begin+1:]
	if _, err := io.ReadFull(random, salt); err != nil {
		return nil, err
	}
	aead, _, err := k.aead(0, salt, purpose)
	if err != nil {
		return nil, err
	}
	return aead.Seal(dst, make([]byte, aead.NonceSize()), value, additional(purpose, place)), nil
}

// Open opens what Seal sealed for the same place and purpose. stale says that
// it was sealed under the previous key and should be sealed anew.
func (k *Keys) Open(purpose, place string, record []byte) (value []byte, stale bool, err error) {
	if len(record) == 0 {
		return nil, false, fmt.Errorf("%w: it is empty", ErrRecord)
	}
	if record[0] != format {
		return nil, false, fmt.Errorf("%w: it has format %d, known is %d", ErrRecord, record[0], format)
	}
	if len(record) < Overhead {
		return nil, false, fmt.Errorf("%w: it has %d bytes, the shortest has %d", ErrRecord, len(record), Overhead)
	}
	salt, sealed := record[1:1+saltSize], record[1+saltSize:]
	for which, more := 0, true; more; which++ {
		var aead cipher.AEAD
		if aead, more, err = k.aead(which, salt, purpose); err != nil {
			return nil, false, err
		}
		if value, err = aead.Open(nil, make([]byte, aead.NonceSize()), sealed, additional(purpose, place)); err == nil {
			return value, which > 0, nil
		}
	}
	return nil, false, ErrRecord
}

// aead derives the record's key from one of the secrets, and reports whether
// there is another one to try.
func (k *Keys) aead(which int, salt []byte, purpose string) (a cipher.AEAD, more bool, err error) {
	key, more, err := k.derive(which, salt, Label+purpose+"\x00"+k.owner)
	if err != nil {
		return nil, false, err
	}
	defer clear(key)
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, false, err
	}
	a, err = cipher.NewGCM(b)
	return a, more, err
}

func (k *Keys) derive(which int, salt []byte, info string) (key []byte, more bool, err error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if which >= len(k.secrets) {
		return nil, false, ErrErased
	}
	key, err = hkdf.Key(sha256.New, k.secrets[which][:], salt, info, KeySize)
	return key, which+1 < len(k.secrets), err
}

// Derive returns a further key for each secret, the current one's first, that
// says nothing about the others: for what is neither sealed nor opened.
func (k *Keys) Derive(info string) (keys [][KeySize]byte, err error) {
	for which, more := 0, true; more; which++ {
		var key []byte
		if key, more, err = k.derive(which, nil, info+k.owner); err != nil {
			return nil, err
		}
		keys = append(keys, [KeySize]byte(key))
		clear(key)
	}
	return keys, nil
}

func additional(purpose, place string) []byte { return []byte(purpose + "\x00" + place) }
