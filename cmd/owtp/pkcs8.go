package main

import (
	"bytes"
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/emmansun/gmsm/pkcs"
	"github.com/emmansun/gmsm/sm2"
	"github.com/emmansun/gmsm/smx509"

	"github.com/owtp-go/owtp/identity"
)

// New keys are encrypted by scrypt and AES-256-CBC. scrypt, because guessing
// then costs memory as well as time: 2^17 with blocks of 1 KiB is 128 MiB and
// about half a second a guess, what OWASP asks for at the least. (OpenSSL's
// command line stops at 32 MiB and cannot open these; it can make keys that
// this tool opens.)
const (
	scryptCost        = 1 << 17
	scryptBlock       = 8
	scryptParallelism = 1
	saltSize          = 16

	// The bounds for what is read: a file must not make the tool use up the
	// machine. They leave room for what careful people choose.
	maxScryptMemory = 1 << 30
	maxParallelism  = 16
	maxIterations   = 50_000_000
)

var (
	oidScrypt   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11591, 4, 11}
	oidPBKDF2   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidSMPBKDF2 = asn1.ObjectIdentifier{1, 2, 156, 10197, 6, 4, 1, 5, 1}
)

// encryptedKey is EncryptedPrivateKeyInfo of RFC 5958 §3.
type encryptedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

func encryptPKCS8(der, passphrase []byte, cost int) ([]byte, error) {
	enc := pkcs.NewPBESEncrypter(pkcs.AES256CBC, pkcs.NewScryptOpts(saltSize, cost, scryptBlock, scryptParallelism))
	algorithm, data, err := enc.Encrypt(rand.Reader, passphrase, der)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(encryptedKey{*algorithm, data})
}

// decryptPKCS8 opens what checkEncryption has let through.
func decryptPKCS8(der, passphrase []byte) ([]byte, error) {
	_, params, data, err := parseEncryption(der)
	if err != nil {
		return nil, err
	}
	plain, _, err := params.Decrypt(passphrase, data)
	return plain, err
}

// checkEncryption says whether an encrypted key is one that can be opened,
// before anybody is asked for a passphrase. The library takes the lengths and
// the costs as they come, so they are checked here.
func checkEncryption(der []byte) error {
	scheme, params, data, err := parseEncryption(der)
	if err != nil {
		return err
	}
	if !pkcs.IsPBES2(scheme) && !pkcs.IsSMPBES(scheme) {
		return fmt.Errorf("is encrypted in an old or unknown way (%v): encrypt it anew with PBES2 (openssl pkcs8 -topk8 -v2 aes-256-cbc)", scheme.Algorithm)
	}
	if err := checkCipher(params.EncryptionScheme, data); err != nil {
		return err
	}
	return checkKDF(params.KeyDerivationFunc)
}

func parseEncryption(der []byte) (scheme pkix.AlgorithmIdentifier, params pkcs.PBES2Params, data []byte, err error) {
	var key encryptedKey
	if rest, err := asn1.Unmarshal(der, &key); err != nil || len(rest) > 0 {
		return scheme, params, nil, errors.New("is damaged: it is no encrypted PKCS#8 key")
	}
	if !pkcs.IsPBES2(key.Algorithm) && !pkcs.IsSMPBES(key.Algorithm) {
		return key.Algorithm, params, nil, nil
	}
	if rest, err := asn1.Unmarshal(key.Algorithm.Parameters.FullBytes, &params); err != nil || len(rest) > 0 {
		return scheme, params, nil, errors.New("is damaged: the parameters of its encryption cannot be read")
	}
	return key.Algorithm, params, key.Data, nil
}

func checkCipher(scheme pkix.AlgorithmIdentifier, data []byte) error {
	known := []pkcs.Cipher{pkcs.AES256CBC, pkcs.AES192CBC, pkcs.AES128CBC, pkcs.SM4CBC, pkcs.SM4}
	for _, c := range known {
		if !c.OID().Equal(scheme.Algorithm) {
			continue
		}
		var iv []byte
		if rest, err := asn1.Unmarshal(scheme.Parameters.FullBytes, &iv); err != nil || len(rest) > 0 || len(iv) != 16 {
			return errors.New("is damaged: its encryption has no IV of 16 bytes")
		}
		if len(data) == 0 || len(data)%16 != 0 {
			return fmt.Errorf("is damaged: %d encrypted bytes are no whole blocks", len(data))
		}
		return nil
	}
	return fmt.Errorf("is encrypted with a cipher that is not supported (%v): known are AES-CBC and SM4-CBC", scheme.Algorithm)
}

func checkKDF(kdf pkix.AlgorithmIdentifier) error {
	switch {
	case kdf.Algorithm.Equal(oidScrypt):
		var p struct {
			Salt      []byte
			N, R, P   int
			KeyLength int `asn1:"optional"`
		}
		if _, err := asn1.Unmarshal(kdf.Parameters.FullBytes, &p); err != nil || p.N <= 1 || p.R <= 0 || p.P <= 0 {
			return errors.New("is damaged: the parameters of scrypt cannot be read")
		}
		if p.R > maxScryptMemory/128 || p.N > maxScryptMemory/128/p.R || p.P > maxParallelism {
			return fmt.Errorf("asks for scrypt with N=%d, r=%d, p=%d: more than 1 GiB of memory is refused", p.N, p.R, p.P)
		}
		return nil
	case kdf.Algorithm.Equal(oidPBKDF2), kdf.Algorithm.Equal(oidSMPBKDF2):
		var p struct {
			Salt       []byte
			Iterations int
			KeyLength  int                      `asn1:"optional"`
			PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
		}
		if _, err := asn1.Unmarshal(kdf.Parameters.FullBytes, &p); err != nil || p.Iterations <= 0 {
			return errors.New("is damaged: the parameters of PBKDF2 cannot be read")
		}
		if p.Iterations > maxIterations {
			return fmt.Errorf("asks for %d iterations of PBKDF2: more than %d are refused", p.Iterations, maxIterations)
		}
		return nil
	}
	return fmt.Errorf("is encrypted with a key derivation that is not supported (%v): known are scrypt and PBKDF2", kdf.Algorithm)
}

// parsePKCS8 reads an SM2 key. The public key that a file carries beside the
// private one must belong to it: the encryption does not notice changes, and a
// key that has changed would silently be another node.
func parsePKCS8(der []byte) (*identity.PrivateKey, error) {
	parsed, err := smx509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("is damaged: it is no PKCS#8 private key in range")
	}
	priv, ok := parsed.(*sm2.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("holds a key of another kind (%T): a node needs an SM2 key (owtp keygen makes one)", parsed)
	}
	scalar := make([]byte, identity.PrivateKeySize)
	defer clear(scalar)
	key, err := identity.NewPrivateKey(priv.D.FillBytes(scalar))
	if err != nil {
		return nil, err
	}
	if stored := storedPublicKey(der); stored != nil && string(stored) != "\x04"+string(key.Public().Bytes()) {
		return nil, errors.New("is damaged: its private and its public key do not belong together")
	}
	return key, nil
}

// storedPublicKey returns the point that an EC key carries (RFC 5915 §3), or
// nil if it carries none.
func storedPublicKey(der []byte) []byte {
	var outer struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}
	var inner struct {
		Version int
		Key     []byte
		Curve   asn1.ObjectIdentifier `asn1:"optional,explicit,tag:0"`
		Public  asn1.BitString        `asn1:"optional,explicit,tag:1"`
	}
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return nil
	}
	defer clear(outer.Key)
	if _, err := asn1.Unmarshal(outer.Key, &inner); err != nil {
		return nil
	}
	defer clear(inner.Key)
	return bytes.Clone(inner.Public.Bytes) // it lies within what is erased here
}
