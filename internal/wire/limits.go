package wire

// Bounds of a packet, checked while it is read and before it is written. They
// are part of the protocol (docs/PROTOCOL.md §3.4): a peer may rely on them.
const (
	// MaxMethod is the most bytes of a method name. Names are looked up and
	// logged; longer ones would only serve somebody who wants long logs.
	MaxMethod = 128
	// MaxMessage is the most bytes of a response's message for people.
	MaxMessage = 4096
	// MaxFormat is the most bytes of a data format's name.
	MaxFormat = 32
	// MaxTrace is the most bytes of a trace context; W3C's traceparent has 55,
	// its tracestate makes up the rest.
	MaxTrace = 512
	// MaxQueue is the most bytes of a queue's name (AMQP 0-9-1 short string).
	MaxQueue = 255
	// MaxMeta is the most user entries of the metadata, MaxMetaKey and
	// MaxMetaValue the most bytes of one. Together they stay below the usual
	// 64 KiB of headers.
	MaxMeta      = 32
	MaxMetaKey   = 64
	MaxMetaValue = 1024
	// MaxHandshake is the most bytes of a finish that rides on a packet.
	MaxHandshake = 256
	// MaxHello is the most bytes of a hello or its answer; the hybrid suite's
	// has about 1.5 KiB. It is checked before anything of it is read.
	MaxHello = 4096
	// MaxSuites is the most suites that a hello may offer.
	MaxSuites = 8
	// MaxRecordPackets is the most packets in one record, so that one message
	// cannot start an unbounded number of handlers.
	MaxRecordPackets = 256

	// MaxDepth is the deepest nesting of JSON, MaxMembers the most members of
	// one object and MaxValues the most values of one packet: far above what
	// people send and far below what would hurt.
	MaxDepth   = 64
	MaxMembers = 100_000
	MaxValues  = 1_000_000
)

var (
	envelopeLimits = ScanLimits{Depth: MaxDepth, Members: MaxMembers, Total: MaxValues}
	dataLimits     = ScanLimits{Depth: MaxDepth - 1, Members: MaxMembers, Total: MaxValues}
)
