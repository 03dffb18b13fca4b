package secure

import (
	"encoding/hex"
	"strconv"

	"github.com/owtp-go/owtp/internal/wire"
)

// A fieldList collects the fields that are present.
type fieldList []refField

func (l *fieldList) number(n int, v uint64) {
	if v != 0 {
		*l = append(*l, refField{Number: n, Type: "number", Value: strconv.FormatUint(v, 10)})
	}
}

// octets leaves out what is empty and what is all zeros, which no field may be
// whose size is fixed; the fields of other sizes are not all zeros in vectors.
func (l *fieldList) octets(n int, v []byte) {
	for _, c := range v {
		if c != 0 {
			*l = append(*l, refField{Number: n, Type: "octets", Value: hex.EncodeToString(v)})
			return
		}
	}
}

func (l *fieldList) text(n int, v string) {
	if v != "" {
		*l = append(*l, refField{Number: n, Type: "text", Value: v})
	}
}

func helloFields(h *wire.Hello) []refField {
	var f fieldList
	f.number(1, 2)
	f.number(2, uint64(h.Transport))
	f.number(3, uint64(h.Mode))
	for _, s := range h.Suites {
		f.text(4, s)
	}
	f.octets(5, h.Key)
	f.octets(6, h.Recipient[:])
	f.octets(7, h.Random[:])
	f.octets(8, h.Ephemeral)
	f.octets(9, h.KEM)
	f.octets(10, h.Epoch[:])
	f.text(11, h.ReplyQueue)
	f.text(12, h.RequestQueue)
	f.octets(13, h.Retires)
	return f
}

func replyFields(h *wire.HelloReply) []refField {
	var f fieldList
	f.number(1, 2)
	f.text(2, h.Suite)
	f.octets(3, h.Key)
	f.octets(4, h.Random[:])
	f.octets(5, h.Ephemeral)
	f.octets(6, h.KEM)
	f.octets(7, h.Session)
	f.octets(8, h.Epoch[:])
	f.number(9, h.Time)
	f.text(10, h.Queue)
	f.number(11, h.Lifetime)
	f.octets(12, h.Signature)
	f.octets(13, h.MAC)
	return f
}

func sessionFields(s *wire.SessionRecord) []refField {
	var f fieldList
	f.number(1, 1)
	f.text(2, s.Suite)
	f.number(3, uint64(s.Mode))
	f.number(4, uint64(s.Transport))
	f.octets(5, s.PeerKey)
	f.octets(6, s.OwnEpoch[:])
	f.octets(7, s.PeerEpoch[:])
	f.octets(8, s.Transcript)
	f.octets(9, s.Send)
	f.octets(10, s.Receive)
	f.octets(11, s.InitiatorMAC)
	f.number(12, s.Expires)
	f.text(13, s.ReplyQueue)
	f.text(14, s.RequestQueue)
	f.octets(15, s.Retires)
	return f
}

func callFields(c *wire.CallRecord) []refField {
	var f fieldList
	f.number(1, 1)
	f.number(2, uint64(c.State))
	f.octets(3, c.Owner[:])
	f.number(4, c.Lease)
	f.octets(5, c.Digest[:])
	for _, n := range c.Attempts {
		f.octets(6, n[:])
	}
	f.octets(7, c.Reply)
	return f
}
