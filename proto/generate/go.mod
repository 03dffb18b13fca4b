module github.com/owtp-go/owtp/proto/generate

go 1.26.0

require (
	github.com/bufbuild/protocompile v0.14.1
	github.com/owtp-go/owtp v0.0.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/mr-tron/base58 v1.3.0 // indirect
	golang.org/x/sync v0.8.0 // indirect
)

// Until there are releases, the library is the one in this repository.
replace github.com/owtp-go/owtp => ../..
