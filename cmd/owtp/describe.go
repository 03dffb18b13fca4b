package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/owtp-go/owtp"
)

// A peer must not go on describing itself for ever: an answer has hundreds of
// methods, and all together so many octets of names and files. Of the files,
// descriptors.go bounds what they cost in memory, which is far more.
const (
	maxAnswers     = 1000
	maxDescription = 4 << 20
)

type describeOptions struct {
	call        callOptions
	json        bool
	descriptors string
}

func newDescribeCommand(c *console) *cobra.Command {
	var o describeOptions
	cmd := &cobra.Command{
		Use:   "describe ADDR",
		Short: "List the methods of a node",
		Long: `Asks a node what it serves and prints its methods, one a line. Those that were
generated from a .proto file have the types of their request and answer behind
the name, and what may be repeated without harm is marked.

A node answers if its program asks for that (NodeConfig.Describe); owtp serve
does. Who may call may ask: ADDR and the flags are those of owtp call.

--descriptors keeps what the node tells of its .proto files, as a
FileDescriptorSet, which owtp call --proto and protoc read.`,
		Example: `  owtp describe http://127.0.0.1:9432
  owtp describe wss://node.example:9433 --sign --json | jq -r '.methods[].name'
  owtp describe ws://127.0.0.1:9433 --descriptors wallet.binpb
  owtp call ws://127.0.0.1:9433 wallet.v1.Wallet/Balance '{"account":"ada"}' --proto wallet.binpb`,
		Args:              arguments(1, 1, "an address"),
		ValidArgsFunction: completeAddress(&o.call.dial.known),
		RunE:              func(cmd *cobra.Command, args []string) error { return describe(cmd.Context(), c, o, args[0]) },
	}
	o.call.dial.register(cmd)
	o.call.dial.registerAcceptNew(cmd)
	o.call.security.register(cmd)
	o.call.v1.register(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.json, "json", false, "print one JSON object")
	f.StringVar(&o.descriptors, "descriptors", "", "write the descriptors of the .proto files to this new `file`")
	return cmd
}

// A description is what a node says of itself (docs/PROTOCOL.md §3.7).
type description struct {
	Methods      []describedMethod `json:"methods"`
	More         bool              `json:"more,omitempty"`
	Files        [][]byte          `json:"files,omitempty"`
	FilesLeftOut bool              `json:"filesLeftOut,omitempty"`
}

type describedMethod struct {
	Name       string `json:"name"`
	Repeatable bool   `json:"repeatable,omitempty"`
	Input      string `json:"input,omitempty"` // these two by the files
	Output     string `json:"output,omitempty"`
}

func describe(ctx context.Context, c *console, o describeOptions, address string) error {
	if err := errors.Join(o.call.dial.check(), o.call.security.check()); err != nil {
		return err
	}
	a, err := o.call.dial.address(address)
	if err != nil {
		return err
	}
	if err := o.call.v1.apply(&a, &o.call); err != nil {
		return err
	}
	caller, err := o.call.newCaller(ctx, c, a)
	if err != nil {
		return err
	}
	defer caller.close()
	if err := caller.meet(ctx, &o.call.dial, &o.call.security); err != nil {
		return err
	}
	var api *api
	err = caller.within(ctx, func(ctx context.Context) error {
		if err := caller.connect(ctx); err != nil {
			return caller.withHint(err, owtp.StatusOf(err))
		}
		api, err = caller.describe(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if err := api.link(); err != nil {
		return withCode(exitStatus, "the peer's descriptors do not fit together: %s", printable(err.Error()))
	}
	if o.descriptors != "" {
		if err := api.write(o.descriptors); err != nil {
			return err
		}
	}
	return api.print(c, o.json)
}

// An api is all that a node has said.
type api struct {
	methods []describedMethod
	files   *descriptorpb.FileDescriptorSet
	seen    map[string]bool // paths of files
	octets  int
	cost    descriptorCost
}

// describe asks until there is no more.
func (c *caller) describe(ctx context.Context) (*api, error) {
	all := &api{files: new(descriptorpb.FileDescriptorSet), seen: make(map[string]bool)}
	leftOut, after := false, ""
	for range maxAnswers {
		d, err := c.askDescription(ctx, map[string]any{"after": after})
		if err != nil {
			return nil, err
		}
		if err := all.add(d); err != nil {
			return nil, err
		}
		leftOut = leftOut || d.FilesLeftOut
		if !d.More || len(d.Methods) == 0 || d.Methods[len(d.Methods)-1].Name <= after {
			break
		}
		after = d.Methods[len(d.Methods)-1].Name
	}
	if leftOut {
		return all, c.describeServices(ctx, all)
	}
	return all, nil
}

// describeServices asks for the files of each service by itself.
func (c *caller) describeServices(ctx context.Context, all *api) error {
	asked := make(map[string]bool)
	for _, m := range all.methods {
		service, _, ok := strings.Cut(m.Name, "/")
		if !ok || asked[service] || len(asked) == maxAnswers {
			continue
		}
		asked[service] = true
		d, err := c.askDescription(ctx, map[string]any{"service": service})
		if err != nil {
			return err
		}
		d.Methods = nil // known
		if err := all.add(d); err != nil {
			return err
		}
		if d.FilesLeftOut {
			c.console.note("Note: the .proto file of %s is too large for the peer to tell.", printable(service))
		}
	}
	return nil
}

func (c *caller) askDescription(ctx context.Context, params any) (*description, error) {
	d, err := owtp.Invoke[*description](ctx, c.node, c.name(), "owtp.describe", params, &owtp.CallOptions{Timeout: c.timeout, Repeatable: true})
	switch owtp.StatusOf(err) {
	case owtp.StatusSuccess:
		return d, nil
	case owtp.ErrNotFoundMethod:
		return nil, withCode(exitStatus, "the peer does not tell what it serves: its program must ask for that (NodeConfig.Describe)")
	case owtp.ErrResponseMethodDiffer:
		return nil, &codedError{exitStatus, err}
	}
	return nil, c.callError(err)
}

func (a *api) add(d *description) error {
	for _, m := range d.Methods {
		a.octets += len(m.Name) + 64
	}
	a.methods = append(a.methods, d.Methods...)
	for _, b := range d.Files {
		a.octets += len(b)
	}
	if a.octets > maxDescription {
		return withCode(exitStatus, "the peer describes itself in more than %d MiB", maxDescription>>20)
	}
	for _, b := range d.Files {
		f := new(descriptorpb.FileDescriptorProto)
		if err := a.cost.addParts(b, f.ProtoReflect().Descriptor(), maxPeerParts); err != nil {
			return withCode(exitStatus, "the peer describes itself with %w", err)
		}
		if err := (proto.UnmarshalOptions{RecursionLimit: maxNesting}).Unmarshal(b, f); err != nil {
			return withCode(exitStatus, "the peer sent a descriptor that cannot be read: %s", printable(protoText(err)))
		}
		if err := a.cost.addNames(f); err != nil {
			return withCode(exitStatus, "the peer describes itself with %w", err)
		}
		if !a.seen[f.GetName()] {
			a.seen[f.GetName()] = true
			a.files.File = append(a.files.File, f)
		}
	}
	return nil
}

// link finds the types of each method.
func (a *api) link() error {
	files, err := protodesc.NewFiles(a.files)
	if err != nil {
		return err
	}
	for i := range a.methods {
		if m := methodIn(files, a.methods[i].Name); m != nil {
			a.methods[i].Input, a.methods[i].Output = string(m.Input().FullName()), string(m.Output().FullName())
		}
	}
	return nil
}

// methodIn finds a method by its name on the wire, or returns nil.
func methodIn(files *protoregistry.Files, name string) protoreflect.MethodDescriptor {
	service, method, _ := strings.Cut(name, "/")
	d, _ := files.FindDescriptorByName(protoreflect.FullName(service))
	if s, ok := d.(protoreflect.ServiceDescriptor); ok {
		return s.Methods().ByName(protoreflect.Name(method))
	}
	return nil
}

// write keeps the descriptors in a new file.
func (a *api) write(path string) error {
	if len(a.files.File) == 0 {
		return withCode(exitStatus, "--descriptors: the peer has no methods that were generated from .proto files")
	}
	octets, err := proto.MarshalOptions{Deterministic: true}.Marshal(a.files)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("--descriptors: %w", err)
	}
	_, err = f.Write(octets)
	return errors.Join(err, f.Close())
}

func (a *api) print(c *console, asJSON bool) error {
	if asJSON {
		text, err := marshalPlain(description{Methods: append([]describedMethod{}, a.methods...)})
		if err != nil {
			return err
		}
		return c.printJSON(text)
	}
	for _, m := range a.methods {
		line := m.Name
		if m.Input != "" {
			line += fmt.Sprintf(" (%s) returns (%s)", m.Input, m.Output)
		}
		if m.Repeatable {
			line += " [repeatable]"
		}
		if _, err := fmt.Fprintln(c.out, printable(line)); err != nil {
			return err
		}
	}
	return nil
}
