package owtp_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const modulePath = "github.com/owtp-go/owtp"

// layers says what each package may import of this module: the picture of
// docs/ARCHITECTURE.md. A package that is not in it has no place yet.
var layers = map[string][]string{
	// L0: no sockets, no goroutines, no clock.
	"identity":                {},
	"internal/wire":           {},
	"transport":               {},
	"internal/atrest":         {},
	"session":                 {"internal/atrest", "internal/loglimit"},
	"internal/leakcheck":      {},
	"internal/loglimit":       {},
	"transport/transporttest": {"transport", "internal/leakcheck"},
	"session/sessiontest":     {"session"},
	"internal/servers":        {"internal/leakcheck"},
	"codec":                   {"internal/wire"},
	"proto/owtppb":            {},
	"internal/testpb":         {},
	"internal/stubs":          {"internal/wire"},
	// L1: each knows its own concern and none knows the node.
	"internal/secure":    {"internal/atrest", "internal/wire", "identity", "transport"},
	"internal/legacy":    {"internal/wire", "identity"},
	"internal/httpguard": {"transport"},
	"internal/httpt":     {"transport", "internal/httpguard"},
	"internal/wst":       {"transport", "internal/httpguard"},
	"internal/memt":      {"transport"},
	"internal/amqpt":     {"transport"},
	"session/memory":     {"session"},
	// L2: the node.
	"internal/teststubs": {"", "internal/testpb"}, // above it, for its tests
	"":                   {"identity", "internal/atrest", "internal/wire", "internal/loglimit", "transport", "session", "codec", "internal/legacy", "internal/secure", "internal/httpt", "internal/wst", "internal/memt", "internal/amqpt", "session/memory"},
}

// isContrib: what registers itself when it is imported, and sees public packages
// only: adapters to other people's systems, in a module of their own, and the
// store in a file, which brings a database along.
func isContrib(dir string) bool {
	return dir == "contrib" || strings.HasPrefix(dir, "contrib/") || dir == "session/file"
}

// programs stand on top; nobody imports them, and they see public packages.
func isProgram(dir string) bool {
	top, _, _ := strings.Cut(dir, "/")
	return top == "cmd" || top == "examples" || top == "bench" || dir == "proto/generate"
}

type sourceFile struct {
	dir, name string
	test      bool
	generated bool
	lines     int
	fset      *token.FileSet
	ast       *ast.File
}

func (f *sourceFile) path() string { return path.Join(f.dir, f.name) }

func (f *sourceFile) imports() (own []string) {
	for _, i := range f.ast.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		if p == modulePath {
			own = append(own, "")
		} else if rest, ok := strings.CutPrefix(p, modulePath+"/"); ok {
			own = append(own, rest)
		}
	}
	return own
}

// sources parses all Go files of the repository, other modules' too.
func sources(t *testing.T) []*sourceFile {
	t.Helper()
	var files []*sourceFile
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(p, ".go") {
			return nil
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		p = filepath.ToSlash(p)
		dir := path.Dir(p)
		if dir == "." {
			dir = ""
		}
		files = append(files, &sourceFile{dir, path.Base(p), strings.HasSuffix(p, "_test.go"), ast.IsGenerated(file), fset.Position(file.End()).Line, fset, file})
		return nil
	})
	must(t, err)
	if len(files) < 50 {
		t.Fatalf("only %d files found: the test looks in the wrong place", len(files))
	}
	return files
}

func TestLayersImportDownwards(t *testing.T) {
	seen := make(map[string]bool)
	for _, f := range sources(t) {
		if isProgram(f.dir) {
			continue
		}
		if isContrib(f.dir) {
			for _, i := range f.imports() {
				if isProgram(i) || !f.test && !strings.HasSuffix(f.dir, "test") && strings.HasPrefix(i, "internal/") {
					t.Errorf("%s imports %s; contrib may import public packages only", f.path(), i)
				}
			}
			continue
		}
		allowed, known := layers[f.dir]
		if !known {
			t.Errorf("%s: package %q has no place in the picture: see docs/ARCHITECTURE.md and add it to layers", f.path(), f.dir)
			continue
		}
		seen[f.dir] = true
		for _, i := range f.imports() {
			switch {
			case isProgram(i) || isContrib(i) && !f.test:
				t.Errorf("%s imports %s, which stands above it", f.path(), i)
			case f.test:
				if i == "" && f.dir != "" && !strings.HasPrefix(f.dir, "session") {
					t.Errorf("%s: a test below the node imports the node", f.path())
				}
			case !slices.Contains(allowed, i):
				t.Errorf("%s imports %q; %q may import %q", f.path(), i, f.dir, allowed)
			}
		}
	}
	for dir := range layers {
		if !seen[dir] {
			t.Errorf("package %q is in the picture and not in the repository", dir)
		}
	}
}

// mayChange are the package-level variables that change while a program runs:
// registries, and pools and caches whose content nobody can tell apart.
var mayChange = map[string]bool{
	"session.openers": true, "session.registered": true, "internal/memt.listening": true,
	"internal/servers.shared": true, "transport.brokers": true, "codec.registry": true, "codec.namesOfTypes": true, "codec.anyHolders": true, ".batches": true, ".pendings": true, "internal/wire.spare": true, "internal/secure.scratch": true, "internal/wst.pieces": true,
}

func TestNoInitAndNoMutableGlobals(t *testing.T) {
	globals := make(map[string]map[string]*ast.ValueSpec) // by package, by name
	var code []*sourceFile
	for _, f := range sources(t) {
		if f.test || f.generated || isProgram(f.dir) {
			continue
		}
		code = append(code, f)
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == "init" && fn.Recv == nil && !isContrib(f.dir) {
				t.Errorf("%s has an init function", f.path())
			}
			gen, ok := d.(*ast.GenDecl)
			if !ok || gen.Tok != token.VAR {
				continue
			}
			for _, s := range gen.Specs {
				spec := s.(*ast.ValueSpec)
				for _, name := range spec.Names {
					if globals[f.dir] == nil {
						globals[f.dir] = make(map[string]*ast.ValueSpec)
					}
					globals[f.dir][name.Name] = spec
					if full := f.dir + "." + name.Name; name.Name != "_" && holdsState(spec) && !mayChange[full] {
						t.Errorf("%s: package-level %s can change while the program runs", f.path(), name.Name)
					}
				}
			}
		}
	}
	for _, f := range code {
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			for _, name := range assigned(fn) {
				if spec := globals[f.dir][name.Name]; spec != nil && name.Name != "_" && (name.Obj == nil || name.Obj.Decl == spec) && !mayChange[f.dir+"."+name.Name] {
					t.Errorf("%s: %s changes the package-level %s", f.path(), fn.Name.Name, name.Name)
				}
			}
		}
	}
}

// holdsState finds locks, atomics and pools in a declaration.
func holdsState(spec *ast.ValueSpec) (found bool) {
	ast.Inspect(spec, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && (x.Name == "sync" || x.Name == "atomic") {
				found = true
			}
		}
		return true
	})
	return found
}

// assigned returns the variables that a function assigns to, directly or
// through fields and indexes.
func assigned(fn *ast.FuncDecl) (names []*ast.Ident) {
	root := func(e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.SelectorExpr:
				e = x.X
			case *ast.IndexExpr:
				e = x.X
			case *ast.StarExpr:
				e = x.X
			case *ast.ParenExpr:
				e = x.X
			case *ast.Ident:
				names = append(names, x)
				return
			default:
				return
			}
		}
	}
	ast.Inspect(fn, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.AssignStmt:
			if x.Tok != token.DEFINE {
				for _, e := range x.Lhs {
					root(e)
				}
			}
		case *ast.IncDecStmt:
			root(x.X)
		case *ast.CallExpr:
			if f, ok := x.Fun.(*ast.Ident); ok && len(x.Args) > 0 && (f.Name == "delete" || f.Name == "clear") {
				root(x.Args[0])
			}
		}
		return true
	})
	return names
}

const (
	maxFileLines = 450
	maxFuncLines = 100
)

func TestSizes(t *testing.T) {
	for _, f := range sources(t) {
		if f.test || f.generated {
			continue
		}
		if f.lines > maxFileLines {
			t.Errorf("%s has %d lines, at most %d", f.path(), f.lines, maxFileLines)
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			fn, ok := n.(*ast.FuncDecl)
			if ok && fn.Body != nil {
				if lines := f.fset.Position(fn.End()).Line - f.fset.Position(fn.Pos()).Line + 1; lines > maxFuncLines {
					t.Errorf("%s: %s has %d lines, at most %d", f.path(), fn.Name.Name, lines, maxFuncLines)
				}
			}
			return true
		})
	}
}
