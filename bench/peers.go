package main

// peers are what this library is measured beside, and the limit.
var peers = []*subject{
	{name: "limit", setting: "hand-written: one TCP connection, AES-256-GCM, one write for all that waits, handlers in the reader's goroutine; no identity, names, bounds or records", formats: formats, open: openLimit(false)},
	{name: "limit-apart", setting: "the limit with a goroutine for each request, as handlers need that may wait", formats: formats, open: openLimit(true)},
	{name: "grpc", setting: grpcSetting, formats: []*format{formatRaw, formatProto}, open: openGRPC(false)},
	{name: "grpc-tls", setting: "TLS 1.3; " + grpcSetting, formats: []*format{formatRaw, formatProto}, open: openGRPC(true)},
	{name: "connect", setting: connectSetting, formats: []*format{formatRaw, formatProto}, open: openConnect},
	{name: "geth-ws", setting: gethWSSetting, formats: []*format{formatJSON}, open: openGeth(true)},
	{name: "geth-http", setting: gethHTTPSetting, formats: []*format{formatJSON}, open: openGeth(false)},
	{name: "net/rpc", setting: netRPCSetting, formats: []*format{formatRaw}, open: openNetRPC},
	{name: "net/http", setting: netHTTPSetting, formats: []*format{formatJSON}, open: openNetHTTP},
	{name: "bare-ws", setting: bareWSSetting, formats: formats, open: openBareWS},
	{name: "bare-nats", setting: bareNATSSetting, formats: formats, needs: "nats", open: openBareNATS},
	{name: "bare-amqp", setting: bareAMQPSetting, formats: formats, needs: "rabbitmq", open: openBareAMQP},
}
