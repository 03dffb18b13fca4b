package file

import (
	"sync/atomic"
	"time"
)

// A clock counts nanoseconds that have passed in the store's life and never goes
// back.
type clock struct {
	base  int64 // the store's time at start
	start time.Time
	given func() time.Time
	high  atomic.Int64
}

// begin sets the clock on from reached, the store's time when the wall clock
// said wall.
func (c *clock) begin(given func() time.Time, reached, wall int64) {
	c.given, c.start = given, time.Now()
	if given != nil {
		c.start = given()
	}
	c.base = max(reached, 1)
	if closed := c.start.UnixNano() - wall; reached > 0 && closed > 0 {
		c.base += closed
	}
	c.high.Store(c.base)
}

func (c *clock) now() int64 {
	if c.given == nil {
		return c.base + int64(time.Since(c.start)) // monotonic
	}
	now := c.base + int64(c.given().Sub(c.start))
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

// wall is what the wall clock says, which may be set.
func (c *clock) wall() int64 {
	if c.given == nil {
		return time.Now().UnixNano()
	}
	return c.given().UnixNano()
}
