package natskv

import (
	"time"

	"github.com/owtp-go/owtp/session"
)

// SetMarkTTL changes how long a deleted record's mark stays.
func SetMarkTTL(p session.Provider, ttl time.Duration) { p.(*Store).markTTL = ttl }
