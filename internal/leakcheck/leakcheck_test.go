package leakcheck

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { os.Exit(RunMain(m)) }

type runner func() int

func (r runner) Run() int { return r() }

// TestPlantedLeak proves that the check can fail.
func TestPlantedLeak(t *testing.T) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	var out strings.Builder
	code := run(runner(func() int {
		go plantedLeak(stop, stopped)
		return 0
	}), 20*time.Millisecond, &out)
	close(stop)
	<-stopped
	if code == 0 || !strings.Contains(out.String(), "plantedLeak") {
		t.Fatalf("the planted leak was not noticed: code %d, output %q", code, out.String())
	}
}

func plantedLeak(stop, stopped chan struct{}) {
	defer close(stopped)
	<-stop
}

func TestWaitsForTheSlow(t *testing.T) {
	code := run(runner(func() int {
		go time.Sleep(30 * time.Millisecond)
		return 0
	}), patience, os.Stderr)
	if code != 0 {
		t.Fatal("a goroutine that ends in time was called a leak")
	}
}

func TestFailureIsKept(t *testing.T) {
	if code := run(runner(func() int { return 7 }), patience, os.Stderr); code != 7 {
		t.Fatalf("got code %d, want that of the tests", code)
	}
}
