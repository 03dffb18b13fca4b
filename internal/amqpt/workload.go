package amqpt

import "sync"

// A workload counts the requests that are in the handler's hands.
type workload struct {
	slots    chan struct{} // one taken for each
	stopping chan struct{} // closed by stop: nothing waits for a slot any more

	mu      sync.Mutex
	running int
	stopped bool
	ended   bool          // nothing begins any more
	idle    chan struct{} // closed when nothing runs after end
}

func newWorkload(most int) *workload {
	return &workload{slots: make(chan struct{}, most), stopping: make(chan struct{}), idle: make(chan struct{})}
}

// begin waits for a slot, and reports whether there is one before gone is
// closed and before stop; after stop, whether there is one at once. Each success
// asks for one finish.
func (w *workload) begin(gone <-chan struct{}) bool {
	select {
	case w.slots <- struct{}{}:
	default:
		select {
		case w.slots <- struct{}{}:
		case <-w.stopping:
			return false
		case <-gone:
			return false
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		<-w.slots
		return false
	}
	w.running++
	return true
}

func (w *workload) finish() {
	<-w.slots
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running--
	if w.ended && w.running == 0 {
		close(w.idle)
	}
}

// stop lets nothing wait for its turn any more.
func (w *workload) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped {
		w.stopped = true
		close(w.stopping)
	}
}

// end is stop, lets nothing begin any more, and returns what is closed when the
// last has finished.
func (w *workload) end() <-chan struct{} {
	w.stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.ended = true
		if w.running == 0 {
			close(w.idle)
		}
	}
	return w.idle
}

func (w *workload) draining() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stopped
}
