package owtp

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/owtp-go/owtp/codec"
	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/transport"
)

// The ways to connect, for ConnectConfig.ConnectType.
const (
	HTTP      = "http" // one exchange a call; the server cannot call back
	Websocket = "ws"   // one connection, both sides call
	MQ        = "mq"   // through a message broker
	Memory    = "mem"  // within one process, for tests and embedding
)

// Trust says whom a node believes at first contact.
type Trust uint8

const (
	// TrustFirstContact binds an alias to the first ID that is proved under
	// it, as SSH does, and refuses any other ID later. The default.
	TrustFirstContact Trust = iota
	// TrustPinned calls only peers whose ID is known beforehand: named by
	// their ID, by ConnectConfig.PeerID or by PinPeer.
	TrustPinned
)

// NodeConfig holds what belongs to a node. Only Cert is needed.
type NodeConfig struct {
	// Cert is the node's identity.
	Cert Certificate
	// TimeoutSEC is how long a call waits and a handler may run, in seconds,
	// unless the call says otherwise. 0 means 60.
	TimeoutSEC int
	// Peerstore keeps what handlers store of peers. nil means a session
	// manager in memory.
	Peerstore Peerstore
	// Store keeps the node's own state: bindings of aliases, agreed sessions,
	// call records and the epoch. nil means the Peerstore's store if that is
	// a SessionManager whose store can (put-if-absent, no eviction),
	// otherwise memory. Replicas share one; each of its operations is bounded
	// by Limits.StoreTimeout.
	Store session.Provider
	// StoreKey, 32 bytes, seals what is stored: the node's own state, and user
	// sessions in a store outside this process. nil means a key derived from
	// the private key ([Certificate.DerivedStoreKey]). Replicas need the same.
	StoreKey []byte
	// PreviousStoreKey opens what was sealed under it while StoreKey is being
	// changed. What is there for ever is sealed anew meanwhile, and the log
	// says when that is done. nil means none.
	PreviousStoreKey []byte
	// Trust says whom to believe at first contact.
	Trust Trust
	// Window is how far a peer's clock may be away, to both sides, on HTTP
	// and MQ. 0 means 30 s; at most 5 min. Replicas need the same, and their
	// clocks within 10 s.
	Window time.Duration
	// MaxQueueTime is how long a message may lie in a queue. 0 means 1 h; at
	// most 24 h.
	MaxQueueTime time.Duration
	// Describe answers the method "owtp.describe", for whoever may call at all:
	// the names of all methods and, for those generated from .proto files, the
	// descriptors of their files. owtp describe prints it.
	Describe bool
	// Limits bound what peers can make the node do.
	Limits Limits
	// Logger is told what happens. nil means nobody is. Of lines with one
	// message, 64 are logged at once and one more every ten seconds; the next
	// says in "dropped" how many were left out.
	Logger *slog.Logger
}

func (c NodeConfig) withDefaults(processors int) (NodeConfig, error) {
	if c.Cert.key == nil {
		return c, errNoCertificate
	}
	var err error
	if c.Limits, err = c.Limits.withDefaults(processors); err != nil {
		return c, err
	}
	switch {
	case c.TimeoutSEC < 0 || c.TimeoutSEC > 86400:
		return c, fmt.Errorf("owtp: NodeConfig.TimeoutSEC is %d; it must be 0 (default 60) to 86400", c.TimeoutSEC)
	case c.Window < 0 || c.Window > 5*time.Minute:
		return c, fmt.Errorf("owtp: NodeConfig.Window is %v; it must be 0 (default 30s) to 5m", c.Window)
	case c.MaxQueueTime < 0 || c.MaxQueueTime > 24*time.Hour:
		return c, fmt.Errorf("owtp: NodeConfig.MaxQueueTime is %v; it must be 0 (default 1h) to 24h", c.MaxQueueTime)
	case c.Trust > TrustPinned:
		return c, fmt.Errorf("owtp: NodeConfig.Trust is %d; known are TrustFirstContact and TrustPinned", c.Trust)
	}
	if c.StoreKey, err = c.storeKey(); err != nil {
		return c, err
	}
	c.PreviousStoreKey = slices.Clone(c.PreviousStoreKey)
	if c.TimeoutSEC == 0 {
		c.TimeoutSEC = 60
	}
	if c.Window == 0 {
		c.Window = 30 * time.Second
	}
	if c.MaxQueueTime == 0 {
		c.MaxQueueTime = time.Hour
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// Format keeps the store keys out of logs.
func (c NodeConfig) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "NodeConfig{Cert:%v TimeoutSEC:%d Trust:%d Window:%v}", c.Cert, c.TimeoutSEC, c.Trust, c.Window)
}

// ConnectConfig holds what belongs to one listener or to one peer that is
// dialled. A field of the other role that is set is an error. However it is
// printed or logged, the password is left out.
type ConnectConfig struct {
	// Address is "host:port"; without a host it is localhost to dial and all
	// addresses to listen. To dial HTTP and WebSocket it may go on with the
	// path at which a face is mounted, "host:port/owtp". For Memory it is any
	// name.
	Address string `json:"address"`
	// ConnectType is HTTP, Websocket, MQ or Memory.
	ConnectType string `json:"connectType"`
	// EnableSignature signs and demands signatures. A listener refuses what
	// carries none, inside a seal too.
	EnableSignature bool `json:"enableSignature"`
	// EnableKeyAgreement seals and demands seals.
	EnableKeyAgreement bool `json:"enableKeyAgreement"`
	// Suites are what an agreement may use, the preferred one first: "aes"
	// (hybrid post-quantum), "sm4". nil means both.
	Suites []string `json:"suites,omitempty"`
	// DataFormat is the format of calls: "json", the default, "protobuf", or
	// another that is registered with the package codec. On a listener it is
	// that of calls back; requests are answered in theirs.
	DataFormat string `json:"dataFormat,omitempty"`
	// EnableSSL adds TLS below, with the system's roots or with TLS. A
	// listener needs TLS with a certificate.
	EnableSSL bool        `json:"enableSSL"`
	TLS       *tls.Config `json:"-"`
	// ReadBufferSize and WriteBufferSize are bytes; 0 is the library's own.
	ReadBufferSize  int `json:"readBufferSize,omitempty"`
	WriteBufferSize int `json:"writeBufferSize,omitempty"`

	// PeerID, to dial: the node ID that the peer must prove.
	PeerID string `json:"peerID,omitempty"`
	// Version, to dial: of the protocol. 0 and 2 are this version. 1 is what
	// OpenWallet's nodes speak (docs/V1.md): a peer proves who it is by a key
	// agreement and not otherwise. Nothing falls back from one to the other.
	Version int `json:"version,omitempty"`

	// AllowPeers, to listen: the node IDs that may call; nil means all.
	AllowPeers []string `json:"allowPeers,omitempty"`
	// Authorize, to listen: asked with a node ID before anything expensive
	// is done for it, and so before it is proved. An error refuses, and so
	// does a panic. It must be quick and safe for concurrent use.
	Authorize func(peerID, remoteAddr string) error `json:"-"`
	// TrustedProxies, to listen: addresses or networks ("10.0.0.0/8") whose
	// X-Forwarded-For is believed.
	TrustedProxies []string `json:"trustedProxies,omitempty"`
	// AllowedOrigins, to listen: web pages ("https://wallet.example") that
	// may call. None by default: no page can call a node on localhost.
	AllowedOrigins []string `json:"allowedOrigins,omitempty"`
	// AllowedHosts, to listen on loopback: further Host names.
	AllowedHosts []string `json:"allowedHosts,omitempty"`

	// AllowV1, to listen: nodes that speak version 1 of the protocol may call
	// too, as docs/V1.md says. EnableSignature and EnableKeyAgreement hold for
	// them as well; what version 1 cannot protect is not protected.
	AllowV1 bool `json:"allowV1,omitempty"`
	// V1Cert is the identity towards version 1 peers, to listen with AllowV1
	// and to dial with Version 1; none means the node's own. One of its own is
	// better: version 1 gives its key less protection.
	V1Cert Certificate `json:"-"`
	// AllowV1Peers are the node IDs that may call in version 1; nil means
	// all. Who is in AllowPeers is not allowed here by that.
	AllowV1Peers []string `json:"allowV1Peers,omitempty"`
	// InsecureV1TrustAgreement takes a version 1 peer for proved that has
	// sealed its request and not signed it. Nothing keeps others from changing
	// such requests in part. To dial with Version 1 it is for what the peer
	// calls back.
	InsecureV1TrustAgreement bool `json:"insecureV1TrustAgreement,omitempty"`
	// InsecureV1BareText takes sealed parameters that are no JSON, as version
	// 1 peers send that pass a bare string: anything else that opens by chance
	// reaches the handler as well, and so does a signed packet without any, whose
	// signature may be from elsewhere. To dial with Version 1 it is for what the
	// peer calls back.
	InsecureV1BareText bool `json:"insecureV1BareText,omitempty"`
	// InsecureV1AnyTime takes signed version 1 requests of any time, for peers
	// without a right clock: a copy runs again after an hour, or a restart.
	InsecureV1AnyTime bool `json:"insecureV1AnyTime,omitempty"`
	// InsecureV1PacketVersion0 takes key agreements with old version 1 nodes,
	// whose packets are of version 0, too: one key encrypts all of a session, so
	// that copies run unless they are signed, and equal beginnings are seen to be
	// equal. To dial with Version 1 it sends such packets and takes no others:
	// answers can be put in each other's place, and nobody is called back under
	// the agreement.
	InsecureV1PacketVersion0 bool `json:"insecureV1PacketVersion0,omitempty"`

	// Address is that of the broker for MQ: amqps://host:port/vhost (without a
	// scheme it is amqps), amqp://, and those of brokers whose package is
	// imported. User and password stand in it or in the fields here. A
	// listener takes requests from ReadQueueName, by default the node's own,
	// "owtp.node." and its ID; to dial, WriteQueueName is where the peer takes
	// them, by default the same with the peer's ID. Messages are published to
	// Exchange, which must exist, by default the broker's nameless one. A
	// listener with AllowV1 needs Exchange, and in WriteQueueName the queue
	// that the version 1 peer reads. To dial with Version 1 all three are
	// needed: those of the peer's configuration, with the queues swapped.
	Account        string `json:"account,omitempty"`
	Password       string `json:"password,omitempty"`
	Exchange       string `json:"exchange,omitempty"`
	WriteQueueName string `json:"writeQueueName,omitempty"`
	ReadQueueName  string `json:"readQueueName,omitempty"`
}

// mode returns the mode that the two flags ask for.
func (c *ConnectConfig) mode() wire.Mode { return modeOf(c.EnableSignature, c.EnableKeyAgreement) }

func modeOf(sign, seal bool) wire.Mode {
	switch {
	case sign && seal:
		return wire.ModeSealedSigned
	case seal:
		return wire.ModeSealed
	case sign:
		return wire.ModeSigned
	}
	return wire.ModeOpen
}

// A spec is a ConnectConfig that has been checked.
type spec struct {
	ConnectConfig
	suites  []*secure.Suite
	peer    identity.ID          // to dial
	allowed map[identity.ID]bool // to listen; nil means all
	v1      *v1Rules             // to listen; nil unless AllowV1
	proxies []netip.Prefix
	path    string           // to dial
	broker  transport.Broker // nil but for MQ
}

func (s *spec) allowedIDs() []identity.ID { return slices.Collect(maps.Keys(s.allowed)) }

// check validates what both roles share.
func (c ConnectConfig) check() (*spec, error) {
	s := &spec{ConnectConfig: c}
	if err := checkConnectType(c.ConnectType); err != nil {
		return nil, err
	}
	if c.ConnectType == MQ {
		if err := s.checkBroker(); err != nil {
			return nil, err
		}
		c = s.ConnectConfig
	}
	if _, err := codec.Lookup(c.DataFormat); err != nil {
		return nil, fmt.Errorf("owtp: ConnectConfig.DataFormat: %w", err)
	}
	if c.ReadBufferSize < 0 || c.WriteBufferSize < 0 {
		return nil, fmt.Errorf("owtp: ReadBufferSize %d and WriteBufferSize %d must not be negative", c.ReadBufferSize, c.WriteBufferSize)
	}
	for _, name := range c.Suites {
		suite, err := secure.SuiteByName(name)
		if err != nil {
			return nil, fmt.Errorf("owtp: ConnectConfig.Suites: %w", err)
		}
		if !slices.Contains(s.suites, suite) {
			s.suites = append(s.suites, suite)
		}
	}
	if s.suites == nil {
		s.suites = secure.Suites()
	}
	if c.TLS != nil && !c.EnableSSL {
		return nil, fmt.Errorf("owtp: ConnectConfig.TLS is set without EnableSSL")
	}
	if c.EnableSSL {
		if c.ConnectType == Memory {
			return nil, fmt.Errorf("owtp: EnableSSL does not exist for %q", Memory)
		}
		s.TLS = c.TLS.Clone() // nil stays nil
		if s.TLS == nil {
			s.TLS = &tls.Config{}
		}
		if s.TLS.MinVersion == 0 {
			s.TLS.MinVersion = tls.VersionTLS12
		}
	}
	return s, nil
}

func (c ConnectConfig) checkDial() (*spec, error) {
	for name, set := range map[string]bool{
		"AllowPeers": c.AllowPeers != nil, "Authorize": c.Authorize != nil, "TrustedProxies": c.TrustedProxies != nil,
		"AllowedOrigins": c.AllowedOrigins != nil, "AllowedHosts": c.AllowedHosts != nil, "AllowV1": c.AllowV1,
	} {
		if set {
			return nil, fmt.Errorf("owtp: ConnectConfig.%s belongs to a listener and has no meaning for Connect", name)
		}
	}
	for name, set := range c.v1Fields() {
		if set && (c.Version != 1 || name != "V1Cert" && name != "InsecureV1BareText" && name != "InsecureV1TrustAgreement" && name != "InsecureV1PacketVersion0") {
			return nil, fmt.Errorf("owtp: ConnectConfig.%s belongs to a listener with AllowV1 and has no meaning for Connect with Version %d", name, c.Version)
		}
	}
	s, err := c.check()
	if err != nil {
		return nil, err
	}
	if err := s.checkVersion(); err != nil {
		return nil, err
	}
	address := c.Address
	if (c.ConnectType == HTTP || c.ConnectType == Websocket) && !strings.Contains(address, "://") {
		if i := strings.IndexByte(address, '/'); i >= 0 {
			address, s.path = address[:i], address[i:]
		}
		if u, err := url.ParseRequestURI("http://host" + s.path); err != nil || u.RawQuery != "" || strings.Contains(s.path, "#") {
			return nil, fmt.Errorf("owtp: address %q: %q is no path", c.Address, s.path)
		}
	}
	if s.broker != nil && !s.isV1() && c.ReadQueueName != "" {
		return nil, fmt.Errorf("owtp: ConnectConfig.ReadQueueName belongs to a listener; answers come to a queue that the connection makes for itself")
	}
	if s.broker == nil {
		if s.Address, err = checkAddress(c.ConnectType, address, "localhost"); err != nil {
			return nil, err
		}
	}
	if c.PeerID != "" {
		if s.peer, err = identity.ParseID(c.PeerID); err != nil {
			return nil, fmt.Errorf("owtp: ConnectConfig.PeerID: %w", err)
		}
	}
	return s, nil
}

func (c ConnectConfig) checkListen() (*spec, error) {
	if c.PeerID != "" {
		return nil, fmt.Errorf("owtp: ConnectConfig.PeerID is for Connect; a listener has AllowPeers")
	}
	if c.Version != 0 {
		return nil, fmt.Errorf("owtp: ConnectConfig.Version is for Connect; a listener has AllowV1")
	}
	s, err := c.check()
	if err != nil {
		return nil, err
	}
	if s.broker != nil && c.WriteQueueName != "" && !c.AllowV1 {
		return nil, fmt.Errorf("owtp: ConnectConfig.WriteQueueName is for Connect; a listener answers to the queue that the caller names")
	}
	if s.broker == nil {
		if s.Address, err = checkAddress(c.ConnectType, c.Address, ""); err != nil {
			return nil, err
		}
	}
	if c.EnableSSL && s.broker == nil && len(s.TLS.Certificates) == 0 && s.TLS.GetCertificate == nil && s.TLS.GetConfigForClient == nil {
		return nil, fmt.Errorf("owtp: a listener with EnableSSL needs a certificate in ConnectConfig.TLS")
	}
	if s.allowed, err = idSet("AllowPeers", c.AllowPeers); err != nil {
		return nil, err
	}
	if err := s.checkV1(); err != nil {
		return nil, err
	}
	for _, text := range c.TrustedProxies {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("owtp: ConnectConfig.TrustedProxies: %q is neither an address nor a network", text)
			}
			p = netip.PrefixFrom(addr, addr.BitLen())
		}
		s.proxies = append(s.proxies, p)
	}
	return s, nil
}

// idSet reads a list of node IDs; nil stays nil.
func idSet(field string, list []string) (map[identity.ID]bool, error) {
	if list == nil {
		return nil, nil
	}
	set := make(map[identity.ID]bool)
	for _, text := range list {
		id, err := identity.ParseID(text)
		if err != nil {
			return nil, fmt.Errorf("owtp: ConnectConfig.%s: %w", field, err)
		}
		set[id] = true
	}
	return set, nil
}

func checkAddress(connectType, address, defaultHost string) (string, error) {
	if connectType == Memory {
		if address == "" {
			return "", fmt.Errorf("owtp: ConnectConfig.Address is empty; for %q it is any name", Memory)
		}
		return address, nil
	}
	if i := strings.LastIndexByte(address, '@'); i >= 0 { // a password may stand before it
		return "", fmt.Errorf("owtp: address %q: want host:port; Account and Password are fields of their own", "[redacted]"+address[i:])
	}
	if strings.Contains(address, "://") {
		return "", fmt.Errorf("owtp: address %q: want host:port without a scheme; ConnectType and EnableSSL say the rest", address)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("owtp: address %q: want host:port: %w", address, err)
	}
	if _, err := net.LookupPort("tcp", port); err != nil || port == "" {
		return "", fmt.Errorf("owtp: address %q: %q is no port", address, port)
	}
	if host == "" {
		host = defaultHost
	}
	return net.JoinHostPort(host, port), nil
}

// sameTarget reports whether two configurations connect to the same peer in
// the same way.
func (s *spec) sameTarget(o *spec) bool {
	a, b := s.ConnectConfig, o.ConnectConfig
	a.TLS, b.TLS = nil, nil // cloned; whoever changes only that wants the old connection
	a.Suites, b.Suites = nil, nil
	return reflect.DeepEqual(a, b) && s.path == o.path && slices.Equal(s.suites, o.suites)
}
