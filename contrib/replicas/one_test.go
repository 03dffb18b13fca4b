package replicas_test

import (
	"slices"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/internal/wire"
)

// TestReplicas has one cluster for each store. Its parts follow one another.
func TestReplicas(t *testing.T) {
	for _, b := range backings {
		t.Run(b.name, func(t *testing.T) {
			c := newCluster(t, b)
			c.agreeOnce()
			c.replay()
			c.loseAnswers()
			c.remember()
			c.endSessions()
			c.leave()
			c.load()
		})
	}
}

var sealed = owtp.ConnectConfig{EnableKeyAgreement: true}

// agreeOnce agrees with one replica and calls all.
func (c *cluster) agreeOnce() {
	c.lb.keep(true)
	n := c.connect(sealed, owtp.Limits{})
	pids := make(map[int]int)
	for id := range 12 {
		pids[c.mustDo(n, id).pid]++
	}
	if len(pids) != replicaCount || c.agreements() != 1 {
		c.t.Errorf("one agreement was to serve %d replicas; there were %d, and answers from %v", replicaCount, c.agreements(), pids)
	}
	c.lb.keep(false)
}

// replay delivers everything that has passed to every replica, sealed and
// signed.
func (c *cluster) replay() {
	c.lb.keep(true)
	n := c.connect(owtp.ConnectConfig{EnableSignature: true}, owtp.Limits{})
	c.mustDo(n, 100)
	c.lb.keep(false)
	before, delivered := c.total(), 0
	for _, m := range c.lb.recorded() {
		for i := range replicaCount {
			c.lb.deliver(c.t, m, i)
			delivered++
		}
	}
	if after := c.total(); after != before || delivered < 3*13 {
		c.t.Errorf("of %d copies, %d have run", delivered, after-before)
	}
}

// loseAnswers drops the answer of each call once: the next attempt comes to
// another replica and gets it there.
func (c *cluster) loseAnswers() {
	n := c.connect(sealed, owtp.Limits{})
	c.mustDo(n, 200)
	for id := 201; id < 207; id++ {
		ran, lost := -1, 0
		c.lb.losing(func(m message) bool {
			if isHello(m) || lost > 0 {
				return false
			}
			lost++
			ran = m.replica
			return true
		})
		a := c.mustDo(n, id)
		if lost != 1 || a.pid != c.replicas[ran].cmd.Process.Pid {
			c.t.Errorf("call %d: %d answers were lost; process %d has run it, the answer is that of %d", id, lost, c.replicas[ran].cmd.Process.Pid, a.pid)
		}
	}
	c.lb.losing(nil)
	for id, runs := range c.runs() {
		if runs != 1 {
			c.t.Errorf("call %d has run %d times", id, runs)
		}
	}
}

// remember: a replica that is killed and started again knows the sessions and
// the answers from before, its own and the others'.
func (c *cluster) remember() {
	c.lb.keep(true)
	defer c.lb.keep(false)
	n := c.connect(sealed, owtp.Limits{})
	c.lb.one(2)
	key := []byte("0123456789abcdef")
	old, err := do(n, 210, &owtp.CallOptions{CallKey: key})
	must(c.t, err)
	agreed := c.agreements()
	c.kill(2)
	c.restart(2)
	now := c.mustDo(n, 211)
	again, err := do(n, 210, &owtp.CallOptions{CallKey: key})
	must(c.t, err)
	c.lb.one(-1)
	if now.pid == old.pid || again.pid != old.pid || c.agreements() != agreed || c.runs()[210] != 1 {
		c.t.Errorf("process %d answered before and %d after the restart; asked again, %d; %d new agreements", old.pid, now.pid, again.pid, c.agreements()-agreed)
	}
}

// endSessions: an agreed session that a new one has taken the place of is dead
// on all replicas within two seconds.
func (c *cluster) endSessions() {
	c.lb.keep(true)
	defer c.lb.keep(false)
	before := c.agreements()
	n := c.connect(sealed, owtp.Limits{SessionLifetime: 2 * time.Second}) // the caller's own: the replicas' is an hour
	for id := range 3 {
		c.mustDo(n, 300+id)
	}
	seen := c.lb.recorded()
	old := seen[len(seen)-1]
	for i := range replicaCount {
		if status := openStatus(c.lb.deliver(c.t, old, i)); status != 0 {
			c.t.Errorf("replica %d does not know the session that lives: %d", i, status)
		}
	}
	id := 310
	eventually(c.t, "the caller agrees anew", func() bool {
		c.mustDo(n, id)
		id++
		return c.agreements() == before+2
	})
	c.mustDo(n, id) // and it is confirmed
	time.Sleep(2 * time.Second)
	for i := range replicaCount {
		if status := openStatus(c.lb.deliver(c.t, old, i)); status != owtp.ErrSecretKeyInvalid {
			c.t.Errorf("replica %d answers %d under a session that has ended", i, status)
		}
	}
}

// openStatus is the status of an answer that is not sealed; 0 if it is.
func openStatus(body []byte) uint64 {
	typ, rest, err := wire.ParseHeader(body)
	if err != nil || typ != wire.TypePackets {
		return 0
	}
	packets, err := wire.ParseRecord(rest)
	if err != nil || len(packets) != 1 {
		return 0
	}
	return packets[0].Status
}

// leave: a user who logs out at one replica is out at all.
func (c *cluster) leave() {
	n := c.connect(sealed, owtp.Limits{})
	at := func(i int, method string) string {
		c.lb.one(i)
		resp, err := n.CallSync("cluster", method, map[string]string{"user": "alice"})
		must(c.t, err)
		must(c.t, resp.Err())
		return resp.JsonData().String()
	}
	var said []string
	at(0, "keep")
	for i := range replicaCount {
		said = append(said, at(i, "fetch"))
	}
	at(1, "leave")
	for i := range replicaCount {
		said = append(said, at(i, "fetch"))
	}
	c.lb.one(-1)
	if want := []string{"alice", "alice", "alice", "", "", ""}; !slices.Equal(said, want) {
		c.t.Errorf("the replicas know the user as %q, want %q", said, want)
	}
}
