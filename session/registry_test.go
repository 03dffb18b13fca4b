package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/memory"
)

func TestRegister(t *testing.T) {
	session.RegisterOnce("memory", memory.Open)
	if session.RegisterOnce("memory", memory.Open) {
		t.Error("RegisterOnce took a name twice")
	}
	if session.RegisterOnce("", memory.Open) || session.RegisterOnce("nil", nil) {
		t.Error("RegisterOnce took nothing for something")
	}
	for _, register := range []func(){
		func() { session.Register("memory", memory.Open) },
		func() { session.Register("", memory.Open) },
		func() { session.Register("nil", nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("Register did not panic")
				}
			}()
			register()
		}()
	}
}

func TestOpen(t *testing.T) {
	session.RegisterOnce("memory", memory.Open)
	p, err := session.Open(t.Context(), "memory", nil)
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	_, err = session.Open(t.Context(), "memroy", nil)
	if err == nil || !strings.Contains(err.Error(), `"memroy"`) || !strings.Contains(err.Error(), "memory") {
		t.Errorf("an unknown name: %v", err)
	}
	_, err = session.NewManager(t.Context(), "memory", &session.ManagerConfig{Maxlifetime: -5})
	if err == nil || !strings.Contains(err.Error(), "Maxlifetime") {
		t.Errorf("a bad config: %v", err)
	}
	if _, err := session.ManagerOf(nil, nil); err == nil {
		t.Error("a manager of nothing")
	}
}

func TestOpenErrorsHideTheDSN(t *testing.T) {
	const dsn = "db://user:pass\"word@host\n/"
	session.RegisterOnce("failing", func(_ context.Context, cfg *session.ManagerConfig) (session.Provider, error) {
		return nil, fmt.Errorf("cannot parse %q, that is %s: %w", cfg.ProviderConfig, cfg.ProviderConfig, io.ErrUnexpectedEOF)
	})
	_, err := session.Open(t.Context(), "failing", &session.ManagerConfig{ProviderConfig: dsn})
	if !errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(err.Error(), "word") || !strings.Contains(err.Error(), "cannot parse") {
		t.Errorf("error: %v", err)
	}
}
