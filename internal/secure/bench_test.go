package secure

import (
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/owtp-go/owtp/internal/wire"
)

var benchSizes = []int{256, 64 << 10}

func eachSuite(b *testing.B, run func(b *testing.B, suite *Suite, size int)) {
	for _, s := range Suites() {
		for _, n := range benchSizes {
			b.Run(fmt.Sprintf("%s/%dB", s.Alias, n), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(n))
				run(b, s, n)
			})
		}
	}
}

func benchDirections(b testing.TB, s *Suite) (send, receive *Direction) {
	i, r := agree(b, s, 2)
	send, _, err := i.Directions()
	if err != nil {
		b.Fatal(err)
	}
	if _, receive, err = r.Directions(); err != nil {
		b.Fatal(err)
	}
	// A benchmark may run longer than a key may live.
	for _, d := range []*Direction{send, receive} {
		d.maxRecords, d.maxOctets = 1<<62, 1<<62
	}
	return send, receive
}

func BenchmarkSealRecord(b *testing.B) {
	eachSuite(b, func(b *testing.B, s *Suite, size int) {
		send, _ := benchDirections(b, s)
		buf := make([]byte, wire.HeaderSize+size, wire.HeaderSize+size+Overhead)
		for b.Loop() {
			if _, err := send.Seal(wire.AppendHeader(buf[:0], wire.TypeRecord)[:len(buf)]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkSealAndOpenRecord(b *testing.B) {
	eachSuite(b, func(b *testing.B, s *Suite, size int) {
		send, receive := benchDirections(b, s)
		buf := make([]byte, wire.HeaderSize+size, wire.HeaderSize+size+Overhead)
		for b.Loop() {
			record, err := send.Seal(wire.AppendHeader(buf[:0], wire.TypeRecord)[:len(buf)])
			if err != nil {
				b.Fatal(err)
			}
			if _, err := receive.Open(record); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkSealMessage(b *testing.B) {
	eachSuite(b, func(b *testing.B, s *Suite, size int) {
		i, _ := agree(b, s, 1)
		packet := make([]byte, size)
		for b.Loop() {
			if _, err := i.SealMessage(rand.Reader, packet, wire.Nonce{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkSealAndOpenMessage(b *testing.B) {
	eachSuite(b, func(b *testing.B, s *Suite, size int) {
		i, r := agree(b, s, 1)
		packet := make([]byte, size)
		for b.Loop() {
			m, err := i.SealMessage(rand.Reader, packet, wire.Nonce{})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := r.OpenMessage(m, wire.Nonce{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func benchPacket(size int) *wire.Packet {
	return &wire.Packet{Kind: wire.Request, Method: "echo", Nonce: wire.Nonce{1}, Format: "raw", Data: make([]byte, size), Mode: wire.ModeSigned, Transport: 1}
}

func BenchmarkSign(b *testing.B) {
	k := newKey(b)
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			p := benchPacket(size)
			b.ReportAllocs()
			for b.Loop() {
				if err := Sign(rand.Reader, k, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	k := newKey(b)
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			p := benchPacket(size)
			if err := Sign(rand.Reader, k, p); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Verify(p, k.Public()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRespond is what a stranger's hello costs.
func BenchmarkRespond(b *testing.B) {
	run := func(name string, suites []*Suite) {
		b.Run(name, func(b *testing.B) {
			local := Local{Key: newKey(b), Rand: rand.Reader}
			_, hello, err := Start(Local{Key: newKey(b), Rand: rand.Reader}, Offer{Transport: 2, Mode: wire.ModeSealed, Suites: suites, Epoch: wire.Nonce{1}})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				h, err := wire.ParseHello(hello[wire.HeaderSize:])
				if err != nil {
					b.Fatal(err)
				}
				if _, _, err := Respond(local, h, hello[wire.HeaderSize:], Reply{Suites: Suites(), Epoch: wire.Nonce{2}, Time: 1}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("aes", []*Suite{AES})
	run("sm4", []*Suite{SM4})
	run("proof", nil)
}

// Sealing and opening records is on every packet's way: it allocates nothing.
func TestRecordsAllocateNothing(t *testing.T) {
	for _, s := range Suites() {
		send, receive := benchDirections(t, s)
		buf := make([]byte, wire.HeaderSize+1000, wire.HeaderSize+1000+Overhead)
		if n := testing.AllocsPerRun(100, func() {
			record, err := send.Seal(wire.AppendHeader(buf[:0], wire.TypeRecord)[:len(buf)])
			if err != nil {
				t.Fatal(err)
			}
			if _, err := receive.Open(record); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations a record", s, n)
		}
	}
}

// mostMessageAllocations are those of sealing and opening one single message. Whoever
// saves some writes the new number here: it only goes down. Without the race detector
// aes has four less.
var mostMessageAllocations = map[string]float64{"aes": 41, "sm4": 29}

func TestMessageAllocations(t *testing.T) {
	for _, s := range Suites() {
		i, r := agree(t, s, 1)
		packet := make([]byte, 256)
		if n := testing.AllocsPerRun(200, func() {
			m, err := i.SealMessage(rand.Reader, packet, wire.Nonce{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.OpenMessage(m, wire.Nonce{}); err != nil {
				t.Fatal(err)
			}
		}); n > mostMessageAllocations[s.Alias] {
			t.Errorf("%s: %v allocations to seal and open a message, at most %v", s, n, mostMessageAllocations[s.Alias])
		}
	}
}
