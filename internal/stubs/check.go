package stubs

import (
	"errors"
	"fmt"
	"go/token"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"

	"github.com/owtp-go/owtp/internal/wire"
)

// check finds everything that keeps the code of a file from being generated, so
// that one run of protoc tells all of it.
func check(f *protogen.File, o Options, names goNames) error {
	var errs []error
	if o.PackageSuffix != "" && !token.IsIdentifier("p"+o.PackageSuffix) {
		errs = append(errs, fmt.Errorf("package_suffix=%q: a Go package cannot end so; use letters and digits", o.PackageSuffix))
	}
	for _, s := range f.Services {
		where := fmt.Sprintf("%s: service %s", f.Desc.Path(), s.Desc.FullName())
		if name := string(s.Desc.FullName()); strings.HasPrefix(name, "owtp.") || strings.HasPrefix(name, "internal_") {
			errs = append(errs, fmt.Errorf("%s: method names that begin with \"owtp.\" or \"internal_\" are the protocol's own; choose another package", where))
		}
		_, importPath, _ := place(f, o)
		for _, name := range topLevel(s) {
			if other := names.add(importPath.Ident(name), where); other != "" {
				errs = append(errs, fmt.Errorf("%s: the Go name %s is taken by %s; rename one of them, or set the option package_suffix", where, name, other))
			}
		}
		methods := make(map[string]*protogen.Method)
		for _, m := range s.Methods {
			if err := checkMethod(m, methods[m.GoName]); err != nil {
				errs = append(errs, fmt.Errorf("%s: method %s: %w", where, m.Desc.Name(), err))
			}
			methods[m.GoName] = m
		}
	}
	return errors.Join(errs...)
}

func checkMethod(m, sameName *protogen.Method) error {
	name := fullMethod(m)
	switch {
	case m.Desc.IsStreamingClient() || m.Desc.IsStreamingServer():
		return fmt.Errorf("OWTP has no streams yet: remove \"stream\" from the %s, and let the server call the client back instead, by a service of the client's", streamed(m))
	case len(name) > wire.MaxMethod:
		return fmt.Errorf("its name on the wire, %s, has %d bytes; at most %d", name, len(name), wire.MaxMethod)
	case sameName != nil:
		return fmt.Errorf("its Go name %s is that of method %s too; rename one of them", m.GoName, sameName.Desc.Name())
	}
	return nil
}

func streamed(m *protogen.Method) string {
	switch {
	case !m.Desc.IsStreamingServer():
		return "request"
	case !m.Desc.IsStreamingClient():
		return "response"
	}
	return "request and the response"
}

// goNames says by which declaration of a .proto file a Go name is taken.
type goNames map[protogen.GoIdent]string

// addTypes takes the names of all messages and enums.
func (n goNames) addTypes(plugin *protogen.Plugin) {
	for _, f := range plugin.Files {
		n.addEnums(f.Enums)
		n.addMessages(f.Messages)
	}
}

func (n goNames) addMessages(messages []*protogen.Message) {
	for _, m := range messages {
		n[m.GoIdent] = fmt.Sprintf("message %s", m.Desc.FullName())
		n.addEnums(m.Enums)
		n.addMessages(m.Messages)
	}
}

func (n goNames) addEnums(enums []*protogen.Enum) {
	for _, e := range enums {
		n[e.GoIdent] = fmt.Sprintf("enum %s", e.Desc.FullName())
	}
}

// add takes a name, or says who has it.
func (n goNames) add(name protogen.GoIdent, by string) (other string) {
	if other = n[name]; other == "" {
		n[name] = by
	}
	return other
}
