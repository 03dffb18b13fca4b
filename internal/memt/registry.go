package memt

import "sync"

// registry knows who listens under which name.
type registry struct {
	mu    sync.Mutex
	names map[string]*listener
}

// listening is the one registry of the process: two nodes meet here that know
// nothing of each other but a name, as they would on a network.
var listening = registry{names: make(map[string]*listener)}

func (r *registry) add(name string, l *listener) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.names[name] != nil {
		return false
	}
	r.names[name] = l
	return true
}

func (r *registry) find(name string) *listener {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.names[name]
}

// remove frees the name, unless it is somebody else's by now.
func (r *registry) remove(name string, l *listener) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.names[name] == l {
		delete(r.names, name)
	}
}
