package main

import (
	"os"
	"testing"

	"github.com/owtp-go/owtp/internal/leakcheck"
)

func TestMain(m *testing.M) { os.Exit(leakcheck.RunMain(m)) }

// TestNode makes the node with its sessions and ends both. The rest of the
// program needs two ports that must be free.
func TestNode(t *testing.T) {
	host, err := createNode()
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := useSessions(host)
	if err != nil {
		t.Fatal(err)
	}
	if err := host.HandleFunc("getInfo", getInfo); err != nil {
		t.Fatal(err)
	}
	if err := sessions.Close(); err != nil {
		t.Fatal(err)
	}
	if err := host.Close(); err != nil {
		t.Fatal(err)
	}
}
