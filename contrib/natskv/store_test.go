package natskv_test

import (
	"sync"
	"testing"
	"time"

	"github.com/owtp-go/owtp/contrib/internal/brokertest"
	"github.com/owtp-go/owtp/contrib/nats/broker"
	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/sessiontest"
)

func TestConformance(t *testing.T) {
	// Started when the first test asks: the suite's own processes do not.
	url := sync.OnceValue(func() string { return brokertest.New(t, broker.Options{}).URL() })
	buckets := 0
	sessiontest.Run(t, func(t *testing.T) session.Provider { return open(t, url()) }, sessiontest.Options{
		TTL: time.Second,
		Config: func(t *testing.T) string {
			buckets++
			return url() + "?bucket=other" + string(rune('a'+buckets))
		},
		Connect: connect,
	})
}
