module github.com/owtp-go/owtp

go 1.26.0

require (
	github.com/coder/websocket v1.8.15
	github.com/emmansun/gmsm v0.44.1
	github.com/mr-tron/base58 v1.3.0
	github.com/rabbitmq/amqp091-go v1.16.0
	github.com/tidwall/gjson v1.20.1
	go.etcd.io/bbolt v1.5.0
	golang.org/x/crypto v0.58.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/tidwall/match v1.1.1 // indirect
	github.com/tidwall/pretty v1.2.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
