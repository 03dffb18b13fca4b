package owtp_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/owtp-go/owtp"
)

// mostAllocations are those of one sealed WebSocket call with its answer, client,
// server and handler together, raw JSON of 256 octets both ways. Whoever saves
// some writes the new number here: it only goes down. Without the race detector,
// which has pools lose some of what they hold, it is 11.
const mostAllocations = 18

func TestSealedCallAllocations(t *testing.T) {
	s := newStage(t, way{connect: owtp.Websocket, suite: "aes"})
	must(t, s.host.HandleFunc("echo", echo))
	s.connect(t)
	payload := json.RawMessage(`"` + strings.Repeat("x", 254) + `"`)
	call := func() {
		resp, err := s.client.CallSync("testhost", "echo", payload)
		if err != nil || !resp.OK() || len(resp.Result.(json.RawMessage)) != len(payload) {
			t.Fatalf("%v, %v", resp, err)
		}
	}
	for range 50 { // pools and tables grow to their size
		call()
	}
	got := testing.AllocsPerRun(500, call)
	t.Logf("%v allocations", got)
	if got > mostAllocations {
		t.Errorf("%v allocations a sealed call, at most %d", got, mostAllocations)
	}
}
