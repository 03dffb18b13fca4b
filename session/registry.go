package session

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// An Opener opens a store for a manager. cfg is a checked copy with the
// defaults filled in and without keys, which the opener may keep but not change. Its errors
// should not repeat ProviderConfig, which may hold a password; [Open] removes
// the whole string from them, but not parts of it.
type Opener func(ctx context.Context, cfg *ManagerConfig) (Provider, error)

var openers = struct {
	sync.RWMutex
	byName map[string]Opener
}{byName: make(map[string]Opener)}

// Register makes a store known under a name, as database/sql does for drivers:
// packages call it from their init function, so that importing one is enough.
// It panics if open is nil, or if the name is empty or taken, since both are
// mistakes in the program that no caller could repair.
func Register(name string, open Opener) {
	if name == "" || open == nil {
		panic("session: Register needs a name and an opener")
	}
	if !RegisterOnce(name, open) {
		panic("session: Register called twice for " + strconv.Quote(name))
	}
}

// RegisterOnce makes a store known unless the name is taken or either argument
// is empty, and reports whether it did. It never panics: it is for a package
// that brings a default along and yields to what is there already.
func RegisterOnce(name string, open Opener) bool {
	if name == "" || open == nil {
		return false
	}
	openers.Lock()
	defer openers.Unlock()
	if _, taken := openers.byName[name]; taken {
		return false
	}
	openers.byName[name] = open
	return true
}

// Providers returns the names of the known stores in ascending order.
func Providers() []string {
	openers.RLock()
	defer openers.RUnlock()
	names := make([]string, 0, len(openers.byName))
	for name := range openers.byName {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Open opens the store that is registered under name. A nil cfg means all
// defaults. An unknown name is an error that lists the known ones.
func Open(ctx context.Context, name string, cfg *ManagerConfig) (Provider, error) {
	checked, err := cfg.checked()
	if err != nil {
		return nil, err
	}
	checked.eraseKeys() // no store needs them
	openers.RLock()
	open := openers.byName[name]
	openers.RUnlock()
	if open == nil {
		known := strings.Join(Providers(), ", ")
		if known == "" {
			known = "none; import a store's package"
		}
		return nil, fmt.Errorf("session: unknown provider %q (known: %s)", name, known)
	}
	p, err := open(ctx, checked)
	if err != nil {
		return nil, &openError{name: name, secret: checked.ProviderConfig, err: err}
	}
	return p, nil
}

// openError keeps the chain for errors.Is and hides the DSN in the text: the
// usual parsers quote in their errors what they could not parse.
type openError struct {
	name, secret string
	err          error
}

func (e *openError) Unwrap() error { return e.err }

func (e *openError) Error() string {
	text := e.err.Error()
	if e.secret != "" {
		quoted := strconv.Quote(e.secret)
		text = strings.ReplaceAll(text, quoted[1:len(quoted)-1], redacted)
		text = strings.ReplaceAll(text, e.secret, redacted)
	}
	return fmt.Sprintf("session: opening provider %q: %s", e.name, text)
}
