package owtp_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/codec"
	"github.com/owtp-go/owtp/internal/teststubs"
)

// The method owtp.describe.

type described struct {
	Methods []struct {
		Name       string `json:"name"`
		Repeatable bool   `json:"repeatable"`
	} `json:"methods"`
	More         bool     `json:"more"`
	Files        [][]byte `json:"files"`
	FilesLeftOut bool     `json:"filesLeftOut"`
}

func (d *described) names() (names []string) {
	for _, m := range d.Methods {
		names = append(names, m.Name)
	}
	return names
}

// files links the descriptors, which works only if all imports are there.
func (d *described) files(t *testing.T) *protoregistry.Files {
	t.Helper()
	set := new(descriptorpb.FileDescriptorSet)
	for _, b := range d.Files {
		f := new(descriptorpb.FileDescriptorProto)
		must(t, proto.Unmarshal(b, f))
		set.File = append(set.File, f)
	}
	files, err := protodesc.NewFiles(set)
	must(t, err)
	return files
}

func describes(h, _ *owtp.NodeConfig) { h.Describe = true }

func describe(t *testing.T, s *stage, format string, params any) *described {
	t.Helper()
	d, err := owtp.Invoke[*described](background(t), s.client, "testhost", "owtp.describe", params, &owtp.CallOptions{Format: format})
	must(t, err)
	return d
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	eachWay(t, someWays(), func(t *testing.T, w way) {
		s := newStage(t, w, describes)
		must(t, s.host.HandleFunc("zero", echo, owtp.Repeatable()))
		must(t, s.host.HandleFunc("a/b", echo)) // looks like a service
		must(t, s.host.HandleFunc("wallet.test.Listener/Other", echo))
		must(t, teststubs.RegisterWalletServer(s.host, newWalletServer()))
		s.connect(t)
		for _, format := range []string{codec.NameJSON, codec.NameProtobuf} {
			d := describe(t, s, format, nil)
			want := []string{
				"a/b", "wallet.test.Listener/Other", "wallet.test.Wallet/Balance", "wallet.test.Wallet/Buy", "wallet.test.Wallet/OldBalance",
				"wallet.test.Wallet/SetLimit", "wallet.test.Wallet/Transfer", "wallet.test.Wallet/Watch", "zero",
			}
			if !slices.Equal(d.names(), want) || d.More || d.FilesLeftOut {
				t.Errorf("%s: %q, more %v, left out %v", format, d.names(), d.More, d.FilesLeftOut)
			}
			for _, m := range d.Methods {
				if want := m.Name == "zero" || strings.HasSuffix(m.Name, "/Balance") || strings.HasSuffix(m.Name, "/SetLimit"); m.Repeatable != want {
					t.Errorf("%s: %s is repeatable: %v", format, m.Name, m.Repeatable)
				}
			}
			files := d.files(t)
			if _, err := files.FindDescriptorByName("wallet.test.Wallet.Transfer"); err != nil || files.NumFiles() != 3 {
				t.Errorf("%s: %v among %d files", format, err, files.NumFiles())
			}
			if d := describe(t, s, format, map[string]any{"service": "wallet.test.Wallet", "after": "wallet.test.Wallet/OldBalance"}); !slices.Equal(d.names(), want[5:8]) || len(d.Files) != 3 {
				t.Errorf("%s: of one service %q with %d files", format, d.names(), len(d.Files))
			}
			if d := describe(t, s, format, map[string]any{"service": "wallet.test"}); len(d.Methods) != 0 || len(d.Files) != 0 {
				t.Errorf("%s: of no service %v", format, d)
			}
		}
		_, err := owtp.Invoke[described](background(t), s.client, "testhost", "owtp.describe", map[string]any{"after": 5})
		if e := wantStatus(t, err, owtp.ErrBadRequest); !strings.Contains(e.Msg, "after") {
			t.Errorf("the error does not name the field: %v", e)
		}
	})
}

// A node that was not asked to says nothing, and whoever may not call learns
// nothing: the demands of a listener, its list of peers and prepare hold.
func TestDescribeOnlyWhereItMay(t *testing.T) {
	t.Parallel()
	ask := func(t *testing.T, s *stage) error {
		_, err := owtp.Invoke[described](background(t), s.client, "testhost", "owtp.describe", nil)
		return err
	}
	t.Run("off", func(t *testing.T) {
		s := newStage(t, way{connect: owtp.Memory, sign: true})
		s.connect(t)
		if e := wantStatus(t, ask(t, s), owtp.ErrNotFoundMethod); e.MayHaveRun {
			t.Errorf("it has run: %+v", e)
		}
	})
	for _, connect := range []string{owtp.HTTP, owtp.Memory} {
		t.Run("unsigned/"+connect, func(t *testing.T) {
			s := newStage(t, way{connect: connect, sign: true}, describes)
			s.dial.EnableSignature = false
			if err := s.client.Connect("testhost", s.dial); err != nil {
				wantStatus(t, err, owtp.ErrUnauthorized)
				return
			}
			wantStatus(t, ask(t, s), owtp.ErrUnauthorized)
		})
	}
	t.Run("not allowed", func(t *testing.T) {
		s := newStage(t, way{connect: owtp.HTTP}, describes)
		strict := owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.HTTP, EnableSignature: true, AllowPeers: []string{s.host.NodeID()}}
		s.host.CloseListener(owtp.HTTP)
		must(t, s.host.Listen(strict))
		s.dial.Address, s.dial.EnableSignature = s.host.ListenerAddr(owtp.HTTP), true
		if err := s.client.Connect("testhost", s.dial); err != nil {
			wantStatus(t, err, owtp.ErrUnauthorized)
			return
		}
		wantStatus(t, ask(t, s), owtp.ErrUnauthorized)
	})
	t.Run("prepare", func(t *testing.T) {
		s := newStage(t, way{connect: owtp.Memory}, describes)
		s.host.HandlePrepareFunc(func(ctx *owtp.Context) { ctx.ResponseStopRun(nil, 601, "no "+ctx.Method) })
		s.connect(t)
		wantStatus(t, ask(t, s), 601)
	})
	t.Run("taken", func(t *testing.T) {
		wantErr(t, randomNode(t).HandleFunc("owtp.describe", echo), "reserved")
	})
}

// However much a node serves, an answer fits into a message, and all of it can be
// had in several.
func TestDescribeIsBounded(t *testing.T) {
	t.Parallel()
	big, err := bigService()
	must(t, err)
	for most, methods := range map[int]int{0: 1000, 128 << 10: 250} {
		s := newStage(t, way{connect: owtp.Memory}, describes, func(h, _ *owtp.NodeConfig) { h.Limits.MaxMessage = most })
		must(t, teststubs.RegisterWalletServer(s.host, newWalletServer()))
		must(t, s.host.HandleFunc(big, echo))
		var want []string
		for i := range methods {
			name := fmt.Sprintf("%s%04d", strings.Repeat("<", 124), i) // six octets each in JSON
			want = append(want, name)
			must(t, s.host.HandleFunc(name, echo))
		}
		s.connect(t)
		for _, format := range []string{codec.NameJSON, codec.NameProtobuf} {
			var got []string
			answers, after, leftOut := 0, "", false
			for more := true; more; answers++ {
				d := describe(t, s, format, map[string]any{"after": after})
				if more = d.More; more && len(d.Methods) == 0 {
					t.Fatal("an answer without methods, and there are more")
				}
				got, leftOut = append(got, d.names()...), leftOut || d.FilesLeftOut
				after = got[len(got)-1]
			}
			if len(got) != len(want)+7 || !slices.Equal(got[:len(want)], want) || answers < 2 || !leftOut {
				t.Errorf("%d of %d methods in %d answers, files left out: %v", len(got), len(want)+7, answers, leftOut)
			}
			// What does not fit keeps nothing else out.
			if d := describe(t, s, format, map[string]any{"service": "wallet.test.Wallet"}); len(d.Files) != 3 || d.FilesLeftOut {
				t.Errorf("%d files, left out %v", len(d.Files), d.FilesLeftOut)
			}
			if d := describe(t, s, format, map[string]any{"service": strings.TrimSuffix(big, "/Call")}); len(d.Files) != 0 || !d.FilesLeftOut || len(d.Methods) != 1 {
				t.Errorf("%d files, left out %v", len(d.Files), d.FilesLeftOut)
			}
		}
	}
}

// bigService links a service into the program, once, whose file is too large, and
// returns its method.
var bigService = sync.OnceValues(func() (string, error) {
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String("big.proto"), Package: proto.String("wallet.big"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Empty")}},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("Big"), Method: []*descriptorpb.MethodDescriptorProto{{
			Name: proto.String("Call"), InputType: proto.String(".wallet.big.Empty"), OutputType: proto.String(".wallet.big.Empty"),
		}}}},
	}
	for i := range 3000 {
		file.MessageType = append(file.MessageType, &descriptorpb.DescriptorProto{Name: proto.String(fmt.Sprintf("M%04d%s", i, strings.Repeat("x", 100)))})
	}
	d, err := protodesc.NewFile(file, nil)
	if err != nil {
		return "", err
	}
	return "wallet.big.Big/Call", protoregistry.GlobalFiles.RegisterFile(d)
})
