package codec_test

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/owtp-go/owtp/codec"
)

// Who reads a number by path and who decodes it see the same one, whichever kind
// its sender gave it.
func TestNumbersByPathAndByType(t *testing.T) {
	for _, f := range []float64{0, 1 << 53, 1<<53 + 2, 123456789012345678, 1 << 60, 1<<63 - 1024, -1 << 63, -(1<<62 + 512)} {
		data := must[[]byte](t)(asProto.Marshal(f))
		var typed int64
		if err := asProto.Unmarshal(data, &typed); err != nil || typed != int64(f) {
			t.Errorf("%v is decoded as %d, %v", f, typed, err)
		}
		text := must[[]byte](t)(codec.ToJSON(asProto, data))
		if got := gjson.ParseBytes(text).Int(); got != typed {
			t.Errorf("%v reads as %d by path and as %d by type", f, got, typed)
		}
	}
	for _, f := range []float64{1 << 63, 1<<64 - 2048} {
		data := must[[]byte](t)(asProto.Marshal(f))
		var typed uint64
		text := must[[]byte](t)(codec.ToJSON(asProto, data))
		if err := asProto.Unmarshal(data, &typed); err != nil || gjson.ParseBytes(text).Uint() != typed {
			t.Errorf("%v reads as %s by path and as %d by type, %v", f, text, typed, err)
		}
	}
	// Above, the text must still be read as the double.
	for _, f := range []float64{1 << 64, -1 << 64, math.Nextafter(-1<<63, -math.MaxFloat64), 1e20, 1e300} {
		text := must[[]byte](t)(codec.ToJSON(asProto, must[[]byte](t)(asProto.Marshal(f))))
		back := must[[]byte](t)(asProto.Marshal(json.RawMessage(text)))
		if got := decodeAny(t, asProto, back); got != f {
			t.Errorf("%v became %v by way of %s", f, got, text)
		}
	}
}

// Integers are int64 if that holds them, however their sender wrote them.
func TestSmallUnsignedNumbers(t *testing.T) {
	for _, n := range []uint64{0, 5, math.MaxInt64} {
		if got := decodeAny(t, asProto, number(4, n)); got != int64(n) {
			t.Errorf("an unsigned %d became %T %v", n, got, got)
		}
	}
	if got := decodeAny(t, asProto, number(4, 1<<63)); got != uint64(1<<63) {
		t.Errorf("2^63 became %T %v", got, got)
	}
}
