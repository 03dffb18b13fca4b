package secure

import (
	"crypto/hmac"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"math/big"
	"strconv"

	"github.com/emmansun/gmsm/sm3"
)

// This file is a second, slow implementation of what the vectors hold: curve,
// signature, exchange, key schedule and encoder, written from the standards
// and docs/PROTOCOL.md and sharing nothing with the code under test but the
// hash functions, the block ciphers and ML-KEM.

func refInt(s string) *big.Int {
	n, ok := new(big.Int).SetString(s, 16)
	if !ok {
		panic("bad number " + s)
	}
	return n
}

// The curve of GB/T 32918.5.
var (
	refP  = refInt("fffffffeffffffffffffffffffffffffffffffff00000000ffffffffffffffff")
	refA  = refInt("fffffffeffffffffffffffffffffffffffffffff00000000fffffffffffffffc")
	refB  = refInt("28e9fa9e9d9f5e344d5a9e4bcf6509a7f39789f515ab8f92ddbcbd414d940e93")
	refN  = refInt("fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54123")
	refGx = refInt("32c4ae2c1f1981195f9904466a39c9948fe30bbff2660be1715a4589334c74c7")
	refGy = refInt("bc3736a2f4f6779c59bdcee36b692153d0a9877cc62a474002df32e52139f0a0")
)

// A refPoint is a point of the curve; x is nil at infinity.
type refPoint struct{ x, y *big.Int }

func refParse(xy []byte) refPoint {
	p := refPoint{new(big.Int).SetBytes(xy[:32]), new(big.Int).SetBytes(xy[32:])}
	if !p.onCurve() {
		panic("not on the curve")
	}
	return p
}

func (p refPoint) onCurve() bool {
	if p.x.Cmp(refP) >= 0 || p.y.Cmp(refP) >= 0 {
		return false
	}
	left := new(big.Int).Mul(p.y, p.y)
	right := new(big.Int).Mul(p.x, p.x)
	right.Add(right, refA).Mul(right, p.x).Add(right, refB)
	return left.Sub(left, right).Mod(left, refP).Sign() == 0
}

func (p refPoint) bytes() []byte {
	out := make([]byte, 64)
	p.x.FillBytes(out[:32])
	p.y.FillBytes(out[32:])
	return out
}

func (p refPoint) add(q refPoint) refPoint {
	if p.x == nil {
		return q
	}
	if q.x == nil {
		return p
	}
	num, den := new(big.Int), new(big.Int)
	if p.x.Cmp(q.x) == 0 {
		if new(big.Int).Mod(new(big.Int).Add(p.y, q.y), refP).Sign() == 0 {
			return refPoint{}
		}
		num.Mul(p.x, p.x).Mul(num, big.NewInt(3)).Add(num, refA)
		den.Lsh(p.y, 1)
	} else {
		num.Sub(q.y, p.y)
		den.Sub(q.x, p.x)
	}
	l := num.Mul(num, den.ModInverse(den.Mod(den, refP), refP))
	x := new(big.Int).Mul(l, l)
	x.Sub(x, p.x).Sub(x, q.x).Mod(x, refP)
	y := new(big.Int).Sub(p.x, x)
	y.Mul(y, l).Sub(y, p.y).Mod(y, refP)
	return refPoint{x, y}
}

func (p refPoint) mul(k *big.Int) refPoint {
	out := refPoint{}
	for i := k.BitLen() - 1; i >= 0; i-- {
		out = out.add(out)
		if k.Bit(i) == 1 {
			out = out.add(p)
		}
	}
	return out
}

func refBase(scalar []byte) refPoint {
	return refPoint{refGx, refGy}.mul(new(big.Int).SetBytes(scalar))
}

// refZA is ZA of GB/T 32918.2 §5.5.
func refZA(xy, user []byte) []byte {
	h := sm3.New()
	h.Write([]byte{byte(len(user) * 8 >> 8), byte(len(user) * 8)})
	h.Write(user)
	for _, n := range []*big.Int{refA, refB, refGx, refGy} {
		h.Write(n.FillBytes(make([]byte, 32)))
	}
	h.Write(xy)
	return h.Sum(nil)
}

// refVerify is GB/T 32918.2 §7.1.
func refVerify(xy, user, sig []byte, parts ...[]byte) bool {
	h := sm3.New()
	h.Write(refZA(xy, user))
	for _, p := range parts {
		h.Write(p)
	}
	e := new(big.Int).SetBytes(h.Sum(nil))
	r, s := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])
	if r.Sign() == 0 || s.Sign() == 0 || r.Cmp(refN) >= 0 || s.Cmp(refN) >= 0 {
		return false
	}
	t := new(big.Int).Add(r, s)
	if t.Mod(t, refN).Sign() == 0 {
		return false
	}
	p := refPoint{refGx, refGy}.mul(s).add(refParse(xy).mul(t))
	return p.x != nil && e.Add(e, p.x).Mod(e, refN).Cmp(r) == 0
}

// refExchange is GB/T 32918.3 §6 for one side; h is 1 on this curve.
func refExchange(d, r, remote, remoteEphemeral, za, zb []byte, size int) []byte {
	bar := func(x *big.Int) *big.Int {
		low := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 127), big.NewInt(1))
		low.And(low, x)
		return low.SetBit(low, 127, 1)
	}
	t := bar(refBase(r).x)
	t.Mul(t, new(big.Int).SetBytes(r)).Add(t, new(big.Int).SetBytes(d)).Mod(t, refN)
	re := refParse(remoteEphemeral)
	u := refParse(remote).add(re.mul(bar(re.x))).mul(t)
	var out []byte
	for ct := uint32(1); len(out) < size; ct++ {
		h := sm3.New()
		h.Write(u.bytes())
		h.Write(za)
		h.Write(zb)
		h.Write(binary.BigEndian.AppendUint32(nil, ct))
		out = h.Sum(out)
	}
	return out[:size]
}

func refHMAC(newHash func() hash.Hash, key []byte, parts ...[]byte) []byte {
	m := hmac.New(newHash, key)
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)
}

// refExpand is RFC 5869 §2.3; Extract is an HMAC with the salt as its key.
func refExpand(newHash func() hash.Hash, prk, info []byte, size int) []byte {
	var out, t []byte
	for i := byte(1); len(out) < size; i++ {
		t = refHMAC(newHash, prk, t, info, []byte{i})
		out = append(out, t...)
	}
	return out[:size]
}

// A refField is one field of a message in the vectors: its number, "number",
// "octets", "text" or "entry", and the value: digits, hex, the text itself, or
// for an entry its own two texts.
type refField struct {
	Number int      `json:"number"`
	Type   string   `json:"type"`
	Value  string   `json:"value,omitempty"`
	Entry  []string `json:"entry,omitempty"`
}

// refEncode is the strict binary form, docs/PROTOCOL.md §3.2.
func refEncode(fields []refField) []byte {
	var b []byte
	for _, f := range fields {
		switch f.Type {
		case "number":
			v, err := strconv.ParseUint(f.Value, 10, 64)
			if err != nil {
				panic(err)
			}
			b = refVarint(b, uint64(f.Number)*8)
			b = refVarint(b, v)
		case "octets":
			v, err := hex.DecodeString(f.Value)
			if err != nil {
				panic(err)
			}
			b = refBytes(b, f.Number, v)
		case "text":
			b = refBytes(b, f.Number, []byte(f.Value))
		case "entry":
			e := refBytes(nil, 1, []byte(f.Entry[0]))
			if f.Entry[1] != "" {
				e = refBytes(e, 2, []byte(f.Entry[1]))
			}
			b = refBytes(b, f.Number, e)
		default:
			panic(fmt.Sprintf("field type %q", f.Type))
		}
	}
	return b
}

func refBytes(b []byte, field int, v []byte) []byte {
	b = refVarint(b, uint64(field)*8+2)
	b = refVarint(b, uint64(len(v)))
	return append(b, v...)
}

func refVarint(b []byte, v uint64) []byte {
	for v > 127 {
		b = append(b, byte(v)|128)
		v >>= 7
	}
	return append(b, byte(v))
}

// refLift finds the point with that x and the even y, if there is one.
func refLift(x int64) (refPoint, bool) {
	p := refPoint{x: big.NewInt(x)}
	right := new(big.Int).Mul(p.x, p.x)
	right.Add(right, refA).Mul(right, p.x).Add(right, refB).Mod(right, refP)
	if p.y = new(big.Int).ModSqrt(right, refP); p.y == nil {
		return refPoint{}, false
	}
	if p.y.Bit(0) == 1 {
		p.y.Sub(refP, p.y)
	}
	return p, true
}
