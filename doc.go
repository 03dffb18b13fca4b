// Package owtp lets two programs call each other's methods over HTTP, WebSocket
// and message queues (RabbitMQ; NATS by importing contrib/nats), with the same
// handlers on every transport. A node is an SM2 key pair; its ID is made from
// the public key, so that who answers is proved and not claimed. Calls may be signed (proof that lasts), sealed (nobody on the way
// reads or changes them) or both, without TLS, and nothing that somebody
// recorded can be sent again. docs/PROTOCOL.md specifies what goes over the wire.
//
// # A first program
//
// A server binds a method once and listens as often as it likes:
//
//	host := owtp.RandomOWTPNode()
//	defer host.Close()
//	host.HandleFunc("greet", func(ctx *owtp.Context) {
//		name := ctx.Params().Get("name").String()
//		ctx.Response(map[string]string{"text": "hello " + name}, owtp.StatusSuccess, "")
//	})
//	err := host.Listen(owtp.ConnectConfig{Address: "127.0.0.1:9432", ConnectType: owtp.HTTP})
//
// A client connects a name to an address and calls it by that name:
//
//	client := owtp.RandomOWTPNode()
//	defer client.Close()
//	err := client.Connect("testhost", owtp.ConnectConfig{Address: "127.0.0.1:9432", ConnectType: owtp.HTTP})
//	resp, err := client.CallSync("testhost", "greet", map[string]string{"name": "Ada"})
//	fmt.Println(resp.JsonData().Get("text"))
//
// A node that keeps its identity makes its [Certificate] of a stored key with
// [NewCertificate] and is made by [New] or [NewNode].
//
// # Modes
//
// What a connection is worth is decided by two flags and one call:
//
//	mode           how                                   peer's ID  others can read
//	open           neither flag                          random     yes
//	signed         EnableSignature                       proved     HTTP, MQ: yes; WebSocket: no
//	sealed         KeyAgreement or EnableKeyAgreement    proved     no
//	sealed+signed  both                                  proved     no
//
// On a listener the flags are demands: EnableSignature refuses what carries no
// signature (401), EnableKeyAgreement what is not sealed (402), before anything
// is routed. On the calling side they say what is sent, and an answer that is
// weaker than its request is nobody's answer. Nothing falls back silently. Open
// mode is for one machine and for trying things out; a listener in open mode on
// an address that is not loopback logs a warning. A signed call leaves evidence
// that anybody verifies offline: [Response.Evidence], [Context.Evidence],
// [VerifyEvidence].
//
// # Trust
//
// The name that [OWTPNode.Connect] is given is a node ID, which the peer must
// prove, or an alias such as "testhost". An alias is bound to the first ID that
// is proved under it, as SSH does, and a peer with another ID is refused later
// with an error that wraps [ErrTrust] (a node that was asked to be somebody else
// refuses by itself, with status 502). ConnectConfig.PeerID and
// [OWTPNode.PinPeer] bind beforehand, [OWTPNode.Bindings] lists,
// [OWTPNode.ForgetPeer] removes. With [TrustPinned] a node calls only peers that
// are bound. [OWTPNode.Identify] asks an address who it is and binds nothing.
//
// In a handler [Context.Proved] says whether Context.PID is a node ID that the
// peer has proved. Otherwise it is random and lives as long as the connection
// or, on HTTP and MQ, the request. SetSession and its kin keep data under that ID: for
// a proved peer on whatever transport it comes, for an anonymous one until its
// connection ends, and for an anonymous one over HTTP or MQ not at all, which is
// an error.
//
// # Calls and errors
//
// [OWTPNode.Call] returns an error if nothing was sent; then its callback never
// runs. If it returns nil the callback runs exactly once, on a goroutine of its
// own, with the answer or with a status of ours. [OWTPNode.CallSync] and
// [OWTPNode.CallContext] return the answer instead. What the peer answered, of
// any status, is a [Response]; an error is ours, and [errors.As] finds an
// [*Error] in it, which says whether the peer proved what it said and whether
// the handler may have run. [StatusOf] gives the status of any error. The names
// that begin with Err and a capital letter are either statuses, which are
// numbers, or the errors [ErrTrust], [ErrUnknownPeer] and [ErrEvidence].
//
// When the context of a call ends, the wait ends at once, and the context of the
// handler ends on the other side. The time that is left travels with the
// request. A handler that panics answers 500; the log has the stack and the
// caller learns nothing of it.
//
// # Typed calls, and services of .proto files
//
// [Handle] binds a handler with Go values for parameters and result, structs with
// JSON tags or Protobuf messages, and [Invoke] calls one; both work over every
// transport and in every data format. An [*Error] that such a handler returns is
// its answer, details included, and [FromContext] has the rest of the request.
// Names of fields match exactly, and parameters that do not fit answer 400 with
// the name of the field.
// protoc-gen-owtp, in cmd/protoc-gen-owtp, makes typed clients and servers of the
// services in .proto files, for both directions: examples/stubs shows it.
//
// # Data formats
//
// Data travels in JSON, or in Protobuf if ConnectConfig.DataFormat or
// CallOptions.Format says "protobuf"; package codec has the interface for others,
// and examples/cbor one. A node serves all of them at once, on every listener and
// method, and answers in the request's: [Context.Params], [Context.Decode],
// [Response.JsonData] and [Response.Decode] read whichever it was. Untyped values
// go through Protobuf as well, and integers of 64 bits and octets are kept. Data
// that is not well formed, by the same bounds in both, answers 400 before any
// handler runs, and a format that is not known 415. Peers of version 1 have JSON
// only.
//
// # Life of a node
//
// [OWTPNode.Listen] returns once the port is bound or the queue is consumed.
// Connect over WebSocket dials and shakes hands; over HTTP and MQ it makes one
// exchange in which the peer proves itself, and none in open mode. A connection that is lost is made anew, with a
// new handshake, while calls wait until their deadline and then end with 430;
// after the peer closed it for good, only another Connect does. [OWTPNode.Shutdown]
// lets finish what runs and answers the rest with 503. [OWTPNode.Close] ends
// everything. After either no goroutine of the node is left, unless a handler
// does not heed its context; a handler must not wait for the Close of its own
// node. To serve beside other routes, mount [OWTPNode.HTTPHandler] and
// [OWTPNode.WebsocketHandler].
//
// # NodeConfig
//
// All fields but Cert have a default that is safe:
//
//   - Cert: the identity; needed
//   - TimeoutSEC: seconds that a call waits and a handler may run; 60
//   - Peerstore: what handlers keep of peers; a session manager in memory
//   - Store: the node's own state (bindings, agreements, call records, epoch);
//     the Peerstore's store if that can, otherwise memory
//   - StoreKey: 32 bytes that seal what is stored; derived from the private key
//   - PreviousStoreKey: opens as well while StoreKey is being changed; none
//   - Trust: whom to believe at first contact; [TrustFirstContact]
//   - Window: how far clocks may differ on HTTP and MQ; 30 s
//   - MaxQueueTime: how long a message may lie in a queue; 1 h
//   - Describe: answer "owtp.describe", which lists methods; false
//   - Limits: what peers can make the node do; see [Limits]
//   - Logger: who is told what happens; nobody
//
// # ConnectConfig
//
// One listener or one peer that is dialled. For both:
//
//   - Address: host:port; without a host localhost to dial, all addresses to
//     listen; for [Memory] any name; for [MQ] the URL of a broker
//   - ConnectType: [HTTP], [Websocket], [MQ] or [Memory]; needed
//   - EnableSignature: sign and demand signatures; false
//   - EnableKeyAgreement: seal and demand seals; false
//   - Suites: what an agreement may use, the preferred one first; "aes", "sm4"
//   - DataFormat: format of parameters and results, on a listener of its calls
//     back; "json"
//   - EnableSSL: TLS below; false
//   - TLS: its configuration; the system's roots. A listener needs one with a
//     certificate
//   - ReadBufferSize, WriteBufferSize: bytes; the library's own
//
// To dial only:
//
//   - PeerID: the node ID that the peer must prove; none
//   - Version: 1 for a peer that speaks protocol version 1 (docs/V1.md); 0 and 2
//     are this version
//
// To listen only:
//
//   - AllowPeers: node IDs that may call; all
//   - Authorize: asked with each node ID; none
//   - TrustedProxies: whose X-Forwarded-For is believed; nobody's
//   - AllowedOrigins: web pages that may call; none
//   - AllowedHosts: further Host names on a loopback listener; none
//   - AllowV1: nodes of protocol version 1 may call as well (docs/V1.md); false
//   - V1Cert: the identity towards them, and towards who is dialled with Version
//     1; the node's own
//   - AllowV1Peers: node IDs that may call in version 1; all
//   - InsecureV1AnyTime: take signed requests of any time from them; false
//   - InsecureV1TrustAgreement, InsecureV1BareText, InsecureV1PacketVersion0: take
//     from them what is refused otherwise, also to dial with Version 1; false
//
// For message queues:
//
//   - Account, Password: of the broker; none
//   - WriteQueueName, to dial: the peer's queue; "owtp.node." and the peer's ID.
//     To listen with AllowV1: the queue that the version 1 peer reads
//   - ReadQueueName, to listen: the node's queue; "owtp.node." and its own ID.
//     To dial with Version 1: the queue that the peer writes to
//   - Exchange: that messages are published to; the broker's nameless one
//
// A field of the other role that is set is an error. Passwords and keys are left
// out however a configuration is printed or logged.
//
// # Concurrency
//
// All methods of a node are safe for concurrent use. Each handler and each
// callback has a goroutine of its own and may call: a slow one delays nobody. A
// [Context] belongs to its handler and is not used after it. Over the limit of
// requests at one time a peer gets 429 at once, nested calls too, so that two
// nodes never wait for each other for ever.
package owtp
