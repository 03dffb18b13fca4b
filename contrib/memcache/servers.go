package memcache

import (
	"hash/fnv"
	"net"
	"strings"
)

// A server is an address that is looked up when it is dialled, each time anew.
type server struct{ network, address string }

func newServer(address string) server {
	if strings.Contains(address, "/") {
		return server{"unix", address}
	}
	return server{"tcp", address}
}

func (s server) Network() string { return s.network }
func (s server) String() string  { return s.address }

// servers are a memcache.ServerSelector: a key is the server's that has the
// highest hash together with it.
type servers []server

func (s servers) PickServer(key string) (net.Addr, error) {
	best, highest := s[0], uint64(0)
	if len(s) > 1 {
		for _, candidate := range s {
			h := fnv.New64a()
			h.Write([]byte(candidate.address))
			h.Write([]byte{0})
			h.Write([]byte(key))
			// FNV's high bits follow the last octets little; mixed, they count.
			if w := mix(h.Sum64()); w >= highest {
				best, highest = candidate, w
			}
		}
	}
	return best, nil
}

func mix(x uint64) uint64 {
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

func (s servers) Each(f func(net.Addr) error) error {
	for _, one := range s {
		if err := f(one); err != nil {
			return err
		}
	}
	return nil
}
