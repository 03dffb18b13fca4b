package owtp_test

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/owtp-go/owtp"
)

// TestV1Document keeps docs/V1.md true: each statement names tests that exist,
// each option that gives up protection has its line, each weakness of version 1's
// nodes too, what cannot be protected is said, and the translation says the same.
func TestV1Document(t *testing.T) {
	english, chinese := readDocument(t, "docs/V1.md"), readDocument(t, "docs/V1.zh-CN.md")
	for _, problem := range v1DocumentProblems(english, testNames(t)) {
		t.Error(problem)
	}
	if a, b := namesIn(english), namesIn(chinese); !slices.Equal(a, b) {
		for _, name := range append(without(a, b), without(b, a)...) {
			t.Errorf("one of the two languages does not name %s", name)
		}
	}
}

func readDocument(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func namesIn(text string) (names []string) {
	for _, m := range namedTest.FindAllString(text, -1) {
		names = append(names, m)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

func v1DocumentProblems(text string, known map[string]bool) (problems []string) {
	say := func(what string, statement string, least int) {
		if len(namesIn(statement)) < least {
			problems = append(problems, what+" names too few tests")
			return
		}
		for _, p := range promiseProblems(statement, known) {
			problems = append(problems, what+" "+p)
		}
	}
	say("the document", text, 20)
	numbered := regexp.MustCompile(`(?m)^\d+\. \*\*`).FindAllStringIndex(text, -1)
	if len(numbered) < 12 {
		problems = append(problems, fmt.Sprintf("%d statements found; the check does not understand the document", len(numbered)))
	}
	for i, at := range numbered {
		end := len(text)
		if i+1 < len(numbered) {
			end = numbered[i+1][0]
		}
		if j := strings.Index(text[at[0]:end], "\n#"); j >= 0 {
			end = at[0] + j
		}
		say(text[at[0]:at[0]+min(end-at[0], 40)], text[at[0]:end], 1)
	}
	row := func(begin string) string {
		_, rest, found := strings.Cut(text, "\n| "+begin+" |")
		if !found {
			return ""
		}
		line, _, _ := strings.Cut(rest, "\n")
		return line
	}
	for i := range 18 {
		say(fmt.Sprintf("weakness %d", i+1), row(fmt.Sprint(i+1)), 1)
	}
	c := reflect.TypeFor[owtp.ConnectConfig]()
	for i := range c.NumField() {
		if name := c.Field(i).Name; strings.HasPrefix(name, "InsecureV1") {
			say(name, row("`"+name+"`"), 2) // without it, and with it
		}
	}
	// A test that shows what is open shows what the document says.
	open := 0
	for name := range known {
		if strings.HasPrefix(name, "TestV1Open") || strings.HasPrefix(name, "TestV1Cannot") || strings.HasPrefix(name, "TestV1CallOpen") {
			if open++; !strings.Contains(text, "`"+name+"`") {
				problems = append(problems, name+" shows what is open, and is not named")
			}
		}
	}
	if open == 0 {
		problems = append(problems, "no test shows what is open")
	}
	return problems
}

// TestV1DocumentCheck proves that the check can fail.
func TestV1DocumentCheck(t *testing.T) {
	text, known := readDocument(t, "docs/V1.md"), testNames(t)
	if problems := v1DocumentProblems(text, known); problems != nil {
		t.Fatal(problems)
	}
	for what, change := range map[string]func(string) string{
		"an option's line": func(s string) string {
			return strings.Replace(s, "| `InsecureV1AnyTime` |", "| InsecureV1AnyTime |", 1)
		},
		"a weakness": func(s string) string { return strings.Replace(s, "\n| 11 |", "\n| x |", 1) },
		"a test that is there": func(s string) string {
			return strings.Replace(s, "`TestV1AttackStolenKey`", "`TestV1AttackStolenKeys`", 1)
		},
		"what is open": func(s string) string { return strings.ReplaceAll(s, "`TestV1OpenAnotherNode`", "a test") },
		"a statement's tests": func(s string) string {
			return regexp.MustCompile(`Tests: .*TestV1AttackWebPage.*`).ReplaceAllString(s, "")
		},
	} {
		changed := change(text)
		if changed == text || v1DocumentProblems(changed, known) == nil {
			t.Errorf("without %s the document passes", what)
		}
	}
}
