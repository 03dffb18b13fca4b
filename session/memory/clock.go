package memory

import (
	"sync/atomic"
	"time"
)

// A clock counts nanoseconds from 1 and never goes back. The system's clock is
// monotonic by itself; of one that is given, the highest reading counts.
type clock struct {
	base  time.Time
	given func() time.Time
	high  atomic.Int64
}

func (c *clock) start(given func() time.Time) {
	c.given = given
	if given != nil {
		c.base = given()
	} else {
		c.base = time.Now()
	}
	c.high.Store(1)
}

func (c *clock) now() int64 {
	if c.given == nil {
		return int64(time.Since(c.base)) + 1
	}
	now := int64(c.given().Sub(c.base)) + 1
	for {
		high := c.high.Load()
		if now <= high {
			return high
		}
		if c.high.CompareAndSwap(high, now) {
			return now
		}
	}
}
