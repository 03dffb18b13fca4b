package wire

// A Hello is the initiator's first message (docs/PROTOCOL.md §6.1). Without
// suites it is a proof hello: it asks who the other side is and agrees on
// nothing, and carries no ephemeral keys.
type Hello struct {
	Transport    uint8
	Mode         Mode
	Suites       []string // what the initiator accepts, the one it prefers first
	Key          []byte   // X‖Y, 64 octets
	Recipient    ID       // absent: whoever answers
	Random       [32]byte
	Ephemeral    []byte // SM2 point, 64 octets
	KEM          []byte // ML-KEM-768 encapsulation key, 1184 octets
	Epoch        Nonce
	ReplyQueue   string
	RequestQueue string
	Retires      []byte // session that this one takes over from, on HTTP and MQ
}

// Sizes of what hellos hold.
const (
	KEMKeySize        = 1184 // FIPS 203, ML-KEM-768 encapsulation key
	KEMCiphertextSize = 1088 // FIPS 203, ML-KEM-768 ciphertext
	SessionIDSize     = 32   // 16 random octets and 16 of their tag
	MACSize           = 32
	maxSuiteName      = 40
)

// Proof reports whether h is a proof hello.
func (h *Hello) Proof() bool { return len(h.Suites) == 0 }

// Append appends the strict binary form.
func (h *Hello) Append(b []byte) []byte {
	b = appendUint(b, 1, Version)
	b = appendUint(b, 2, uint64(h.Transport))
	b = appendUint(b, 3, uint64(h.Mode))
	for _, s := range h.Suites {
		b = appendOctets(b, 4, s)
	}
	b = appendOctets(b, 5, h.Key)
	b = appendFixed(b, 6, h.Recipient[:])
	b = appendFixed(b, 7, h.Random[:])
	b = appendOctets(b, 8, h.Ephemeral)
	b = appendOctets(b, 9, h.KEM)
	b = appendFixed(b, 10, h.Epoch[:])
	b = appendOctets(b, 11, h.ReplyQueue)
	b = appendOctets(b, 12, h.RequestQueue)
	return appendOctets(b, 13, h.Retires)
}

// ParseHello reads a hello; all of b belongs to it.
func ParseHello(b []byte) (*Hello, error) {
	if len(b) > MaxHello {
		return nil, malformed("hello of %d octets, at most %d", len(b), MaxHello)
	}
	h := new(Hello)
	r := reader{rest: b}
	version := uint64(0)
	for r.next(4) {
		switch r.field {
		case 1:
			if version = r.uint(1 << 32); r.err == nil && version != Version {
				return nil, versionError(version)
			}
		case 2:
			h.Transport = uint8(r.uint(255))
		case 3:
			h.Mode = Mode(r.uint(uint64(ModeSealedSigned)))
		case 4:
			h.Suites = append(h.Suites, r.text(maxSuiteName))
			if len(h.Suites) > MaxSuites {
				r.fail("more than %d suites", MaxSuites)
			}
		case 5:
			h.Key = r.exactly(64)
		case 6:
			r.fixed(h.Recipient[:])
		case 7:
			r.fixed(h.Random[:])
		case 8:
			h.Ephemeral = r.exactly(64)
		case 9:
			h.KEM = r.exactly(KEMKeySize)
		case 10:
			r.fixed(h.Epoch[:])
		case 11:
			h.ReplyQueue = r.text(MaxQueue)
		case 12:
			h.RequestQueue = r.text(MaxQueue)
		case 13:
			h.Retires = r.exactly(SessionIDSize)
		default:
			r.unknown()
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	if err := h.check(version); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *Hello) check(version uint64) error {
	switch {
	case version == 0 || h.Transport == 0 || h.Mode < ModeSigned || h.Key == nil || h.Random == [32]byte{} || h.Epoch.IsZero():
		return malformed("hello without version, transport, mode, key, random or epoch")
	case h.Proof() != (h.Ephemeral == nil):
		return malformed("hello with suites and no ephemeral key, or the other way round")
	case h.Proof() && (h.KEM != nil || h.Retires != nil):
		return malformed("proof hello with fields of an agreement")
	case !plain(h.ReplyQueue) || !plain(h.RequestQueue):
		return malformed("control character in a queue's name")
	}
	return nil
}

// A HelloReply is the responder's answer (docs/PROTOCOL.md §6.2).
type HelloReply struct {
	Suite     string // absent in the answer to a proof hello
	Key       []byte
	Random    [32]byte
	Ephemeral []byte
	KEM       []byte // ML-KEM-768 ciphertext, 1088 octets
	Session   []byte // on HTTP and MQ
	Epoch     Nonce
	Time      uint64 // milliseconds since 1970, UTC
	Queue     string
	Lifetime  uint64 // milliseconds that the session lasts, on HTTP and MQ
	Signature []byte
	MAC       []byte // absent in the answer to a proof hello
}

// AppendUnsigned appends the form that enters the transcript.
func (h *HelloReply) AppendUnsigned(b []byte) []byte {
	b = appendUint(b, 1, Version)
	b = appendOctets(b, 2, h.Suite)
	b = appendOctets(b, 3, h.Key)
	b = appendFixed(b, 4, h.Random[:])
	b = appendOctets(b, 5, h.Ephemeral)
	b = appendOctets(b, 6, h.KEM)
	b = appendOctets(b, 7, h.Session)
	b = appendFixed(b, 8, h.Epoch[:])
	b = appendUint(b, 9, h.Time)
	b = appendOctets(b, 10, h.Queue)
	return appendUint(b, 11, h.Lifetime)
}

// Append appends the strict binary form.
func (h *HelloReply) Append(b []byte) []byte {
	b = h.AppendUnsigned(b)
	b = appendOctets(b, 12, h.Signature)
	return appendOctets(b, 13, h.MAC)
}

// ParseHelloReply reads a hello's answer; all of b belongs to it.
func ParseHelloReply(b []byte) (*HelloReply, error) {
	if len(b) > MaxHello {
		return nil, malformed("hello reply of %d octets, at most %d", len(b), MaxHello)
	}
	h := new(HelloReply)
	r := reader{rest: b}
	version := uint64(0)
	for r.next(0) {
		switch r.field {
		case 1:
			if version = r.uint(1 << 32); r.err == nil && version != Version {
				return nil, versionError(version)
			}
		case 2:
			h.Suite = r.text(maxSuiteName)
		case 3:
			h.Key = r.exactly(64)
		case 4:
			r.fixed(h.Random[:])
		case 5:
			h.Ephemeral = r.exactly(64)
		case 6:
			h.KEM = r.exactly(KEMCiphertextSize)
		case 7:
			h.Session = r.exactly(SessionIDSize)
		case 8:
			r.fixed(h.Epoch[:])
		case 9:
			h.Time = r.uint(1<<63 - 1)
		case 10:
			h.Queue = r.text(MaxQueue)
		case 11:
			h.Lifetime = r.uint(1<<63 - 1)
		case 12:
			h.Signature = r.exactly(64)
		case 13:
			h.MAC = r.exactly(MACSize)
		default:
			r.unknown()
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	if err := h.check(version); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *HelloReply) check(version uint64) error {
	proof := h.Suite == ""
	switch {
	case version == 0 || h.Key == nil || h.Random == [32]byte{} || h.Epoch.IsZero() || h.Time == 0 || h.Signature == nil:
		return malformed("hello reply without version, key, random, epoch, time or signature")
	case proof != (h.Ephemeral == nil) || proof != (h.MAC == nil):
		return malformed("hello reply with a suite and no ephemeral key or MAC, or the other way round")
	case proof && (h.KEM != nil || h.Session != nil || h.Lifetime != 0):
		return malformed("proof with fields of an agreement")
	case !plain(h.Queue):
		return malformed("control character in a queue's name")
	}
	return nil
}

// A Finish is the initiator's proof; it rides on packets.
type Finish struct {
	Signature []byte
	MAC       []byte
}

// Append appends the strict binary form.
func (f *Finish) Append(b []byte) []byte {
	b = appendOctets(b, 1, f.Signature)
	return appendOctets(b, 2, f.MAC)
}

// ParseFinish reads a finish; all of b belongs to it.
func ParseFinish(b []byte) (*Finish, error) {
	f := new(Finish)
	r := reader{rest: b}
	for r.next(0) {
		switch r.field {
		case 1:
			f.Signature = r.exactly(64)
		case 2:
			f.MAC = r.exactly(MACSize)
		default:
			r.unknown()
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	if f.Signature == nil || f.MAC == nil {
		return nil, malformed("finish without signature or MAC")
	}
	return f, nil
}
