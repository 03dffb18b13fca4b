package legacy

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"math/big"
	"strings"

	"github.com/emmansun/gmsm/padding"
)

// ErrOpen says that data does not open, and never why: padding that is wrong
// must look like anything else that is.
var ErrOpen = errors.New("version 1 data does not open")

var errErased = errors.New("version 1 session has been erased")

var pkcs7 = padding.NewPKCS7Padding(aes.BlockSize)

// Seal encrypts the text of a packet's data for SetText: AES-256-CBC without a
// MAC, as version 1 has it. The empty text stays as it is. A response has the
// version and nonce of its request.
func (s *Session) Seal(text []byte, version int64, nonce uint64) (string, error) {
	if !s.live {
		return "", errErased
	}
	if len(text) == 0 {
		return "", nil
	}
	block, iv, err := s.cipher(version, nonce)
	if err != nil {
		return "", err
	}
	sealed := pkcs7.Pad(text[:len(text):len(text)]) // in an array of its own
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(sealed, sealed)
	return base64.StdEncoding.EncodeToString(sealed), nil
}

// Open decrypts the data, flattened by Packet.Text. The empty text is not
// encrypted and opens as itself, so it proves nothing; other text may have been
// changed on its way, since there is no MAC, and must be checked as JSON.
func (s *Session) Open(data string, version int64, nonce uint64) ([]byte, error) {
	if !s.live {
		return nil, errErased
	}
	if data == "" {
		return nil, nil
	}
	if strings.ContainsAny(data, "\r\n") { // which Strict skips
		return nil, ErrOpen
	}
	text, err := base64.StdEncoding.Strict().DecodeString(data)
	if err != nil || len(text)%aes.BlockSize != 0 {
		return nil, ErrOpen
	}
	block, iv, err := s.cipher(version, nonce)
	if err != nil {
		return nil, err
	}
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(text, text)
	if text, err = pkcs7.ConstantTimeUnpad(text); err != nil {
		return nil, ErrOpen
	}
	return text, nil
}

// cipher is AES under the key of a packet, whose first half is the IV.
func (s *Session) cipher(version int64, nonce uint64) (cipher.Block, []byte, error) {
	key := s.key
	defer clear(key[:])
	if version == 1 {
		mac := hmac.New(sha256.New, nonceKey(nonce))
		mac.Write(s.key[:])
		mac.Sum(key[:0])
	}
	block, err := aes.NewCipher(key[:])
	iv := append([]byte(nil), key[:aes.BlockSize]...)
	return block, iv, err
}

// nonceKey is the amount of the nonce as a signed number, big-endian without
// leading zeros: none for 0, and 01 for 2^64-1.
func nonceKey(nonce uint64) []byte {
	n := big.NewInt(int64(nonce))
	return n.Bytes()
}

// SealJSON makes the data this JSON value, encrypted as the sender of version 1
// does: a string without its quotes, so that the empty one stays as it is.
func (p *Packet) SealJSON(s *Session, value []byte) error {
	if err := p.SetJSON(value); err != nil {
		return err
	}
	text, err := p.Text()
	if err != nil {
		return err
	}
	if string(p.Data) == "null" {
		text = "null"
	}
	sealed, err := s.Seal([]byte(text), p.Version, p.Nonce)
	if err != nil {
		return err
	}
	return p.SetText(sealed)
}
