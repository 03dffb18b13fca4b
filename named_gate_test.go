package owtp

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/owtp-go/owtp/identity"
)

// Peers that have proved any number of keys from any number of addresses keep
// the workers of proved peers busy; the named one that comes from where it has
// proved itself before does not wait for them. Who merely claims its ID does.
func TestNamedHandshakes(t *testing.T) {
	limits := defaultLimits(2)
	names := newNamed()
	g := newGate(limits, names)
	partner := identity.ID{99}
	names.add(partner)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	for i := range cap(g.known.slots) + limits.MaxHandshakeQueue {
		remote, id := "192.0.2."+string(rune('0'+i%10))+":1", identity.ID{byte(i)}
		g.remember(remote, id)
		go func() {
			if leave, err := g.enter(ctx, remote, id, false, false); err == nil {
				<-ctx.Done()
				leave()
			}
		}()
	}
	for int(g.known.waiting.Load()) < limits.MaxHandshakeQueue/2 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	claimed, stop := context.WithTimeout(ctx, 10*time.Millisecond)
	defer stop()
	if leave, err := g.enter(claimed, "203.0.113.1:1", partner, true, false); err == nil {
		leave()
		t.Error("who only claims the named ID has its workers")
	}
	g.remember("198.51.100.1:1", partner)
	soon, stop2 := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop2()
	leave, err := g.enter(soon, "198.51.100.1:1", partner, false, false)
	if err != nil {
		t.Fatal(err)
	}
	leave()
}

// Whatever is taken and given back, by whomever and whoever is named meanwhile,
// stays within the bounds and comes back whole.
func TestQuotaComesBack(t *testing.T) {
	names := newNamed()
	ids := make([]identity.ID, 6)
	for i := range ids {
		ids[i] = identity.ID{byte(i + 1)}
	}
	q := newQuota(5, 16, 1000, names)
	type taken struct {
		name   string
		octets int
	}
	var held []taken
	for range 20_000 {
		id := ids[rand.N(len(ids))]
		switch rand.N(8) {
		case 0:
			names.pin(string(id[:1]), id)
		case 1:
			names.unpin(string(id[:1]))
		case 2, 3, 4:
			one := taken{id.String(), rand.N(120)}
			before := q.others
			if q.take(one.name, one.octets) {
				held = append(held, one)
				if q.others != before && (q.others.n > names.part(q.most) || q.others.octets > names.part(q.octets)) {
					t.Fatalf("others have %+v", q.others)
				}
			}
		default:
			if len(held) > 0 {
				i := rand.N(len(held))
				q.give(held[i].name, held[i].octets)
				held[i] = held[len(held)-1]
				held = held[:len(held)-1]
			}
		}
		if q.inUse.n != len(held) || q.inUse.n > q.most || q.inUse.octets > q.octets || q.others.n > q.inUse.n {
			t.Fatalf("%d are held, but %+v in use, %+v of others", len(held), q.inUse, q.others)
		}
	}
	for _, one := range held {
		q.give(one.name, one.octets)
	}
	if q.inUse != (holding{}) || q.others != (holding{}) || len(q.used) != 0 {
		t.Errorf("left: %+v, %+v of others, %d names", q.inUse, q.others, len(q.used))
	}
}
