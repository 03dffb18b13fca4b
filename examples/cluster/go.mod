module github.com/owtp-go/owtp/examples/cluster

go 1.26.0

require (
	github.com/owtp-go/owtp v0.0.0
	github.com/owtp-go/owtp/contrib v0.0.0
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/coder/websocket v1.8.15 // indirect
	github.com/emmansun/gmsm v0.44.1 // indirect
	github.com/mr-tron/base58 v1.3.0 // indirect
	github.com/rabbitmq/amqp091-go v1.16.0 // indirect
	github.com/redis/go-redis/v9 v9.23.0 // indirect
	github.com/tidwall/gjson v1.20.1 // indirect
	github.com/tidwall/match v1.1.1 // indirect
	github.com/tidwall/pretty v1.2.0 // indirect
	go.uber.org/atomic v1.12.0 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

// Until there are releases, the library is the one in this repository.
replace (
	github.com/owtp-go/owtp => ../..
	github.com/owtp-go/owtp/contrib => ../../contrib
)
