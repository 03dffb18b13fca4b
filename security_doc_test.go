package owtp_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/owtp-go/owtp"
)

// TestSecurityDocument keeps docs/SECURITY.md true: each promise names tests
// that exist, and each limit has its line in the table of bounds.
func TestSecurityDocument(t *testing.T) {
	b, err := os.ReadFile("docs/SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	known := testNames(t)
	if len(known) < 50 {
		t.Fatalf("%d tests found in the tree; the check looks at the wrong place", len(known))
	}
	numbered := regexp.MustCompile(`(?m)^\d+\. \*\*`).FindAllStringIndex(text, -1)
	if len(numbered) < 10 {
		t.Fatalf("%d promises found; the check does not understand the document", len(numbered))
	}
	for i, at := range numbered {
		end := len(text)
		if i+1 < len(numbered) {
			end = numbered[i+1][0]
		} else if j := strings.Index(text[at[0]:], "\n## "); j >= 0 {
			end = at[0] + j
		}
		for _, problem := range promiseProblems(text[at[0]:end], known) {
			t.Errorf("promise %d %s", i+1, problem)
		}
	}
	_, bounds, _ := strings.Cut(text, "## Bounds")
	limits := reflect.TypeFor[owtp.Limits]()
	for i := range limits.NumField() {
		if name := limits.Field(i).Name; !strings.Contains(bounds, "`"+name+"`") {
			t.Errorf("Limits.%s has no line in the table of bounds", name)
		}
	}
}

var namedTest = regexp.MustCompile("`([a-z/0-9]*\\.)?((?:Test|Fuzz)[A-Za-z0-9_]*)`")

func promiseProblems(promise string, known map[string]bool) (problems []string) {
	names := namedTest.FindAllStringSubmatch(promise, -1)
	if len(names) == 0 {
		return []string{"names no test"}
	}
	for _, n := range names {
		if dir := strings.TrimSuffix(n[1], "."); !known[path.Join(dir, n[2])] {
			problems = append(problems, "names "+n[0]+", which does not exist")
		}
	}
	return problems
}

// testNames returns "folder/TestName" of every test in the tree.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	known := make(map[string]bool)
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9_]*)\([a-z]+ \*testing\.[TF]\)`)
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, "_test.go"):
			return nil
		}
		src, err := os.ReadFile(name)
		for _, m := range declared.FindAllSubmatch(src, -1) {
			known[path.Join(filepath.ToSlash(filepath.Dir(name)), string(m[1]))] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return known
}

// TestSecurityDocumentCheck proves that the check can fail.
func TestSecurityDocumentCheck(t *testing.T) {
	for promise, wrong := range map[string]bool{
		"1. **x** `TestA`": false, "1. **x** `a/b.TestA`": false,
		"1. **x** `TestB`": true, "1. **x** `b.TestA`": true, "1. **x** no test": true,
	} {
		problems := promiseProblems(promise, map[string]bool{"TestA": true, "a/b/TestA": true})
		if (problems != nil) != wrong {
			t.Errorf("%q: %q, want a problem: %v", promise, problems, wrong)
		}
	}
}
