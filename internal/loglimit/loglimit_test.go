package loglimit

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// A book is a log at a time of the test's.
type book struct {
	bytes.Buffer
	at time.Time
}

func newBook() (*book, *slog.Logger) {
	b := &book{at: time.Unix(1000, 0)}
	return b, slog.New(newAt(slog.NewTextHandler(b, nil), func() time.Time { return b.at }))
}

func (b *book) lines(part string) int { return strings.Count(b.String(), part) }

func TestFloodIsDropped(t *testing.T) {
	b, log := newBook()
	log.Warn("first kind", "n", -1)
	for i := range 10_000 {
		log.Info("flood", "remote", i)
	}
	log.Warn("other kind")
	if got := b.lines("msg=flood"); got != Burst {
		t.Errorf("%d lines of a flood, want %d", got, Burst)
	}
	if b.lines(`msg="first kind"`) != 1 || b.lines(`msg="other kind"`) != 1 {
		t.Errorf("the flood hides lines of other kinds:\n%s", b.String())
	}
	b.at = b.at.Add(Pause)
	log.Info("flood", "remote", "later")
	log.Info("flood", "remote", "too soon")
	if want := fmt.Sprintf("remote=later dropped=%d", 10_000-Burst); b.lines(want) != 1 || b.lines("too soon") != 0 {
		t.Errorf("%q is not there, or a second line came with it:\n%s", want, b.String())
	}
	b.at = b.at.Add(2 * Burst * Pause)
	for range 10 * Burst {
		log.Info("flood")
	}
	if got := b.lines("msg=flood"); got != 2*Burst+1 {
		t.Errorf("%d lines after a rest, want %d", got, 2*Burst+1)
	}
	if b.lines("dropped=1\n") != 1 || b.lines("dropped=") != 2 {
		t.Error("what was dropped before the rest is not told once")
	}
}

// A message is not constant, against the rules: what is told apart stays bounded.
func TestKindsAreBounded(t *testing.T) {
	b, log := newBook()
	for i := range 10 * maxKinds {
		log.Info(fmt.Sprint("message ", i))
	}
	if got := strings.Count(b.String(), "\n"); got > maxKinds+Burst {
		t.Errorf("%d lines, want at most %d", got, maxKinds+Burst)
	}
	if h := log.Handler().(*handler); len(h.kinds.of) > maxKinds+1 {
		t.Errorf("%d kinds are remembered", len(h.kinds.of))
	}
}

func TestDerivedLoggersShare(t *testing.T) {
	b, log := newBook()
	for i := range 4 * Burst {
		log.With("a", i).WithGroup("g").Warn("flood", "b", i)
	}
	if got := b.lines("msg=flood"); got != Burst {
		t.Errorf("%d lines, want %d", got, Burst)
	}
	if b.lines("a=1 g.b=1") != 1 {
		t.Errorf("attributes are lost:\n%s", b.String())
	}
	log.Debug("not enabled")
	if b.lines("not enabled") != 0 {
		t.Error("a level that is switched off was logged")
	}
}

func TestConcurrent(t *testing.T) {
	b := new(bytes.Buffer)
	log := slog.New(New(slog.NewTextHandler(b, nil)))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				log.Info("flood", "a", 1)
			}
		})
	}
	wg.Wait()
	if got := strings.Count(b.String(), "msg=flood"); got < Burst || got > Burst+2 {
		t.Errorf("%d lines, want %d", got, Burst)
	}
}
