package stubs

import (
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
)

// A service writes the code of one service.
type service struct {
	*protogen.GeneratedFile
	*protogen.Service

	clientName, clientImpl, serverName, unimplementedName string
}

func newService(g *protogen.GeneratedFile, s *protogen.Service) *service {
	return &service{
		GeneratedFile: g, Service: s,
		clientName: s.GoName + "Client", clientImpl: strings.ToLower(s.GoName[:1]) + s.GoName[1:] + "Client",
		serverName: s.GoName + "Server", unimplementedName: "Unimplemented" + s.GoName + "Server",
	}
}

// topLevel are the names that the code of a service declares.
func topLevel(s *protogen.Service) []string {
	svc := newService(nil, s)
	names := []string{svc.clientName, svc.clientImpl, "New" + svc.clientName, svc.serverName, svc.unimplementedName, "Register" + svc.serverName}
	for _, m := range s.Methods {
		if name := constant(m); !slices.Contains(names, name) { // two methods of one name are reported as such
			names = append(names, name)
		}
	}
	return names
}

func constant(m *protogen.Method) string { return m.Parent.GoName + "_" + m.GoName + "_FullMethodName" }

func (s *service) constants() {
	if len(s.Methods) == 0 {
		return
	}
	s.P("// The methods of ", s.Desc.FullName(), " by their names on the wire.")
	s.P("const (")
	for _, m := range s.Methods {
		s.P(constant(m), " = ", strconv.Quote(fullMethod(m)))
	}
	s.P(")")
	s.P()
}

// comment writes a comment of the .proto file, or a text of ours before it.
func (s *service) comment(first string, from protogen.Comments, deprecated bool) {
	text := strings.TrimRight(from.String(), "\n")
	if first != "" {
		s.wrapped(first)
		if text != "" {
			s.P("//")
		}
	}
	if text != "" {
		s.P(text)
	}
	if deprecated {
		if first != "" || text != "" {
			s.P("//")
		}
		s.P("// Deprecated: it is marked as deprecated in ", s.Desc.ParentFile().Path(), ".")
	}
}

// wrapped writes one of our own comments.
func (s *service) wrapped(text string) {
	line := "//"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > 80 {
			s.P(line)
			line = "//"
		}
		line += " " + word
	}
	s.P(line)
}

func (s *service) deprecated() bool { return isDeprecated(s.Desc.Options()) }

func (s *service) ident(from protogen.GoImportPath, name string) string {
	return s.QualifiedGoIdent(from.Ident(name))
}

// local is the name of a parameter, or another one if the package of the method's
// result has it: the parameter would hide the package.
func (s *service) local(name string, m *protogen.Method) string {
	if strings.HasPrefix(s.QualifiedGoIdent(m.Output.GoIdent), name+".") {
		return name + "_"
	}
	return name
}

// clientSignature is what stands behind func and the receiver.
func (s *service) clientSignature(m *protogen.Method) string {
	return m.GoName + "(" + s.local("ctx", m) + " " + s.ident(contextPackage, "Context") + ", " + s.local("in", m) + " *" + s.QualifiedGoIdent(m.Input.GoIdent) +
		", " + s.local("opts", m) + " ...*" + s.ident(owtpPackage, "CallOptions") + ") (*" + s.QualifiedGoIdent(m.Output.GoIdent) + ", error)"
}

func (s *service) client() {
	s.comment(s.clientName+" calls the service "+string(s.Desc.FullName())+" of one peer. Its errors are *owtp.Error. Options are none or one.", s.Comments.Leading, s.deprecated())
	s.P("type ", s.clientName, " interface {")
	for _, m := range s.Methods {
		s.comment("", m.Comments.Leading, isDeprecated(m.Desc.Options()))
		s.P(s.clientSignature(m))
	}
	s.P("}")
	s.P()
	s.P("type ", s.clientImpl, " struct {")
	s.P("node *", s.ident(owtpPackage, "OWTPNode"))
	s.P("pid string")
	s.P("}")
	s.P()
	s.comment("New"+s.clientName+" returns a client that calls the peer with that name or ID: one that the node has connected to, or one that has connected to it.", "", s.deprecated())
	s.P("func New", s.clientName, "(node *", s.ident(owtpPackage, "OWTPNode"), ", pid string) ", s.clientName, " {")
	s.P("return &", s.clientImpl, "{node, pid}")
	s.P("}")
	s.P()
	for _, m := range s.Methods {
		c := s.local("c", m)
		s.P("func (", c, " *", s.clientImpl, ") ", s.clientSignature(m), " {")
		s.P("return ", s.ident(owtpPackage, "Invoke"), "[*", s.QualifiedGoIdent(m.Output.GoIdent), "](", s.local("ctx", m), ", ", c, ".node, ", c, ".pid, ",
			constant(m), ", ", s.local("in", m), ", ", s.options(m), "...)")
		s.P("}")
		s.P()
	}
	if slices.ContainsFunc(s.Methods, repeatable) {
		s.repeatableOptions()
	}
}

func (s *service) options(m *protogen.Method) string {
	opts := s.local("opts", m)
	if repeatable(m) {
		return s.local("c", m) + ".repeatable(" + opts + ")"
	}
	return opts
}

// repeatableOptions writes what adds Repeatable to the options. No rpc has its
// name: those are exported.
func (s *service) repeatableOptions() {
	options := s.ident(owtpPackage, "CallOptions")
	s.P("func (c *", s.clientImpl, ") repeatable(opts []*", options, ") []*", options, " {")
	s.P("var o ", options)
	s.P("switch {")
	s.P("case len(opts) > 1:")
	s.P("return opts // an error")
	s.P("case len(opts) == 1 && opts[0] != nil:")
	s.P("o = *opts[0]")
	s.P("}")
	s.P("o.Repeatable = true")
	s.P("return []*", options, "{&o}")
	s.P("}")
	s.P()
}

func (s *service) serverSignature(m *protogen.Method) string {
	return m.GoName + "(" + s.ident(contextPackage, "Context") + ", *" + s.QualifiedGoIdent(m.Input.GoIdent) + ") (*" + s.QualifiedGoIdent(m.Output.GoIdent) + ", error)"
}

func (s *service) server() {
	s.comment(s.serverName+" is the service "+string(s.Desc.FullName())+" as a node implements it: embed "+s.unimplementedName+" by value. An *owtp.Error is answered with its status and text, any other error with status 500.", s.Comments.Leading, s.deprecated())
	s.P("type ", s.serverName, " interface {")
	for _, m := range s.Methods {
		s.comment("", m.Comments.Leading, isDeprecated(m.Desc.Options()))
		s.P(s.serverSignature(m))
	}
	s.P("mustEmbed", s.unimplementedName, "()")
	s.P("}")
	s.P()
}

func (s *service) unimplemented() {
	s.comment(s.unimplementedName+" answers every method with status 404. Implementations embed it, by value, so that they still compile when the service gets further methods.", "", s.deprecated())
	s.P("type ", s.unimplementedName, " struct{}")
	s.P()
	for _, m := range s.Methods {
		s.P("func (", s.unimplementedName, ") ", s.serverSignature(m), " {")
		s.P("return nil, &", s.ident(owtpPackage, "Error"), "{Status: ", s.ident(owtpPackage, "ErrNotFoundMethod"), `, Msg: "no such method"}`)
		s.P("}")
		s.P()
	}
	s.P("func (", s.unimplementedName, ") mustEmbed", s.unimplementedName, "() {}")
	s.P()
}

func (s *service) registration() {
	s.comment("Register"+s.serverName+" binds the methods of "+string(s.Desc.FullName())+" to an implementation, for every transport of the node. A method that has a handler already is an error, and leaves those before it bound. It panics if impl embeds a nil pointer to "+s.unimplementedName+", which would panic at every call otherwise.", "", s.deprecated())
	s.P("func Register", s.serverName, "(node *", s.ident(owtpPackage, "OWTPNode"), ", impl ", s.serverName, ") error {")
	s.P("if impl == nil {")
	s.P("return ", s.ident(errorsPackage, "New"), `("owtp: Register`, s.serverName, `: the implementation is nil")`)
	s.P("}")
	s.P("impl.mustEmbed", s.unimplementedName, "()")
	for _, m := range s.Methods {
		s.P("if err := ", s.ident(owtpPackage, "Handle"), "(node, ", constant(m), ", impl.", m.GoName, s.handleOptions(m), "); err != nil {")
		s.P("return err")
		s.P("}")
	}
	s.P("return nil")
	s.P("}")
	s.P()
}

func (s *service) handleOptions(m *protogen.Method) string {
	if !repeatable(m) {
		return ""
	}
	return ", " + s.ident(owtpPackage, "Repeatable") + "()"
}
