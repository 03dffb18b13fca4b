// Command protoc-gen-owtp is a plugin of protoc and buf. For each service of a
// .proto file it writes a typed client, a server interface and its registration
// with an OWTP node, beside what protoc-gen-go writes for the messages:
//
//	protoc --go_out=. --go_opt=paths=source_relative \
//	       --owtp_out=. --owtp_opt=paths=source_relative wallet.proto
//
// With buf it is one more plugin in buf.gen.yaml:
//
//	version: v2
//	plugins:
//	  - local: protoc-gen-go
//	    out: .
//	    opt: paths=source_relative
//	  - local: protoc-gen-owtp
//	    out: .
//	    opt: paths=source_relative
//
// The option package_suffix=SUFFIX writes the code into a package of its own
// beside that of the messages. An rpc whose idempotency_level is NO_SIDE_EFFECTS
// or IDEMPOTENT is repeatable: its client sends it again when a connection
// breaks. Streaming rpcs are refused.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime/debug"

	"google.golang.org/protobuf/compiler/protogen"

	"github.com/owtp-go/owtp/internal/stubs"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println("protoc-gen-owtp", version())
		return
	}
	if len(os.Args) > 1 {
		fmt.Fprintf(os.Stderr, "protoc-gen-owtp: unknown argument %q: protoc or buf starts this program and gives it the .proto files, as in\nprotoc --go_out=. --owtp_out=. wallet.proto\n", os.Args[1])
		os.Exit(2)
	}
	var flags flag.FlagSet
	var o stubs.Options
	o.Register(&flags)
	protogen.Options{ParamFunc: flags.Set}.Run(func(plugin *protogen.Plugin) error {
		stubs.Generate(plugin, o)
		return nil
	})
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
