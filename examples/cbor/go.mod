module github.com/owtp-go/owtp/examples/cbor

go 1.26.0

require (
	github.com/fxamacker/cbor/v2 v2.10.0
	github.com/owtp-go/owtp v0.0.0
)

require (
	github.com/coder/websocket v1.8.15 // indirect
	github.com/emmansun/gmsm v0.44.1 // indirect
	github.com/mr-tron/base58 v1.3.0 // indirect
	github.com/rabbitmq/amqp091-go v1.16.0 // indirect
	github.com/tidwall/gjson v1.20.1 // indirect
	github.com/tidwall/match v1.1.1 // indirect
	github.com/tidwall/pretty v1.2.0 // indirect
	github.com/x448/float16 v0.8.4 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

// Until there are releases, the library is the one in this repository.
replace github.com/owtp-go/owtp => ../..
