// Package httpguard is what the transports that come in over HTTP have in
// common: a server that bounds what strangers may take, the checks that keep
// web pages away from a wallet on localhost, and bounded reading.
package httpguard

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/owtp-go/owtp/transport"
)

// A Guard decides from the headers alone whether a request may come in. It is
// immutable and safe for concurrent use.
type Guard struct {
	origins map[string]bool
	hosts   map[string]bool
	proxies []netip.Prefix
}

// NewGuard copies what it needs from cfg.
func NewGuard(cfg transport.Config) *Guard {
	g := &Guard{
		origins: make(map[string]bool, len(cfg.AllowedOrigins)),
		hosts:   make(map[string]bool, len(cfg.AllowedHosts)),
		proxies: append([]netip.Prefix(nil), cfg.TrustedProxies...),
	}
	for _, o := range cfg.AllowedOrigins {
		g.origins[o] = true
	}
	for _, h := range cfg.AllowedHosts {
		g.hosts[strings.ToLower(h)] = true
	}
	return g
}

// Check says why a request may not come in, or nil (PROTOCOL §7). Browsers send
// an Origin with every POST and every WebSocket upgrade, other programs send
// none, so having one is enough to be refused.
func (g *Guard) Check(r *http.Request) *transport.Refusal {
	for _, o := range r.Header["Origin"] {
		if !g.origins[o] {
			return &transport.Refusal{Status: http.StatusForbidden, Reason: "origin not allowed"}
		}
	}
	// A page whose name was rebound to 127.0.0.1 is of the same origin as this
	// listener, but it cannot make the browser send another Host than its own.
	if arrivedOnLoopback(r) && !g.hostAllowed(r.Host) {
		return &transport.Refusal{Status: http.StatusForbidden, Reason: "host not allowed"}
	}
	return nil
}

// Origin returns the request's Origin, which Check has allowed, or "".
func (g *Guard) Origin(r *http.Request) string {
	if v := r.Header["Origin"]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// arrivedOnLoopback takes the strict side where nothing is known.
func arrivedOnLoopback(r *http.Request) bool {
	switch addr := r.Context().Value(http.LocalAddrContextKey).(type) {
	case *net.TCPAddr:
		return addr.IP.IsLoopback()
	case *net.UnixAddr:
		return false // no browser reaches a Unix socket
	case net.Addr:
		ap, err := netip.ParseAddrPort(addr.String())
		return err != nil || ap.Addr().Unmap().IsLoopback()
	}
	return true
}

func (g *Guard) hostAllowed(hostport string) bool {
	hostport = strings.ToLower(hostport)
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	if host == "localhost" || g.hosts[host] || g.hosts[hostport] {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// Remote says where a request came from. X-Forwarded-For is believed only as
// far as trusted proxies wrote it: from the right to the first address that is
// not such a proxy; everything left of that the client may have invented.
func (g *Guard) Remote(r *http.Request) transport.Remote {
	from := transport.Remote{Addr: r.RemoteAddr}
	if addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		from.LocalAddr = addr.String()
	}
	if len(g.proxies) > 0 {
		from.Addr = g.forwarded(r)
	}
	return from
}

func (g *Guard) forwarded(r *http.Request) string {
	socket, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !g.trusted(socket.Addr()) {
		return r.RemoteAddr
	}
	found := r.RemoteAddr
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop, ok := parseHop(hops[i])
		if !ok {
			break
		}
		found = hop.String()
		if !g.trusted(hop.Addr()) {
			break
		}
	}
	return found
}

// parseHop reads "ip", "ip:port" and "[ip]:port"; a missing port becomes 0, so
// that a Remote's address always has one.
func parseHop(s string) (netip.AddrPort, bool) {
	s = strings.TrimSpace(s)
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), true
	}
	ip, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return netip.AddrPortFrom(ip.Unmap(), 0), err == nil
}

func (g *Guard) trusted(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	for _, p := range g.proxies {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}
