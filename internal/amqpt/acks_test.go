package amqpt

import (
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A fakeChannel keeps the broker's account of deliveries.
type fakeChannel struct {
	mu       sync.Mutex
	owed     map[uint64]bool // delivered and not heard of
	finished map[uint64]bool // dealt with by the test
	messages int
	wrong    []uint64
}

func (c *fakeChannel) Ack(tag uint64, multiple bool) error { return c.settle(tag, multiple) }

func (c *fakeChannel) Nack(tag uint64, multiple, _ bool) error { return c.settle(tag, multiple) }

func (c *fakeChannel) settle(tag uint64, multiple bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.messages++
	if !c.owed[tag] {
		c.wrong = append(c.wrong, tag) // RabbitMQ would close the channel
	}
	for t := range c.owed {
		if t != tag && (!multiple || t > tag) {
			continue
		}
		if !c.finished[t] {
			c.wrong = append(c.wrong, t)
		}
		delete(c.owed, t)
	}
	return nil
}

func (c *fakeChannel) deliver(tag uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owed[tag] = true
}

func (c *fakeChannel) finish(tag uint64) amqp.Delivery {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finished[tag] = true
	return amqp.Delivery{DeliveryTag: tag}
}

func (c *fakeChannel) owes(tag uint64) bool { return c.all()[tag] }

func (c *fakeChannel) all() map[uint64]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.owed)
}

func (c *fakeChannel) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.messages
}

func newFakeChannel() *fakeChannel {
	return &fakeChannel{owed: make(map[uint64]bool), finished: make(map[uint64]bool)}
}

// TestAcks: whatever the order in which requests end, nothing that runs is
// acknowledged, nothing twice, and all that was answered soon.
func TestAcks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for round := range uint64(50) {
			rnd := rand.New(rand.NewPCG(round, 1))
			ch := newFakeChannel()
			const prefetch, deliveries = 32, 5000
			a := newAcks(ch, prefetch)
			var running []uint64
			for next := uint64(1); next <= deliveries || len(running) > 0; {
				if next <= deliveries && len(running) < prefetch && rnd.IntN(3) > 0 {
					ch.deliver(next)
					running = append(running, next)
					next++
					continue
				}
				if len(running) == 0 {
					continue
				}
				i := rnd.IntN(len(running))
				if rnd.IntN(2) == 0 {
					i = 0 // mostly in order
				}
				d := ch.finish(running[i])
				running = append(running[:i], running[i+1:]...)
				switch rnd.IntN(20) {
				case 0:
					a.giveBack(d)
				case 1:
					a.bury(d)
				default:
					a.done(d)
				}
				if len(a.dealt) > prefetch+1 {
					t.Fatalf("round %d: %d spans for %d requests that run", round, len(a.dealt), len(running))
				}
			}
			a.close()
			if len(ch.wrong) != 0 || len(ch.owed) != 0 {
				t.Fatalf("round %d: wrongly settled %v, still owed %v", round, ch.wrong, ch.owed)
			}
			if ch.messages > deliveries*2/3 {
				t.Errorf("round %d: %d messages for %d deliveries", round, ch.messages, deliveries)
			}
		}
	})
}

// TestAcksBehindOneThatRuns: a request that runs for long does not hold up the
// acknowledgements of others for longer than two pauses.
func TestAcksBehindOneThatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ch := newFakeChannel()
		a := newAcks(ch, 1000)
		for tag := range uint64(10) {
			ch.deliver(tag + 1)
		}
		for _, tag := range []uint64{1, 3, 4, 5} { // 2 runs
			a.done(ch.finish(tag))
		}
		if ch.count() != 0 {
			t.Errorf("%d messages at once", ch.count())
		}
		time.Sleep(ackPause)
		synctest.Wait()
		if ch.owes(1) || !ch.owes(3) {
			t.Errorf("after one pause the broker is owed %v", ch.all())
		}
		time.Sleep(ackPause)
		synctest.Wait()
		if ch.owes(3) || ch.owes(4) || ch.owes(5) || !ch.owes(2) {
			t.Errorf("after two pauses the broker is owed %v", ch.all())
		}
		a.done(ch.finish(2))
		time.Sleep(ackPause)
		synctest.Wait()
		if ch.owes(2) || len(ch.wrong) != 0 {
			t.Errorf("in the end the broker is owed %v, wrongly settled %v", ch.all(), ch.wrong)
		}
		one := newAcks(ch, 1)
		before := ch.count()
		ch.deliver(1)
		one.done(ch.finish(1))
		if ch.count() != before+1 {
			t.Error("with room for one delivery its acknowledgement waits")
		}
		a.close()
		one.close()
	})
}
