package main

import (
	"os"
	"testing"

	"github.com/owtp-go/owtp/transport/transporttest"
)

func TestMain(m *testing.M) { os.Exit(transporttest.RunMain(m)) }

func Example() {
	if err := run(); err != nil {
		os.Stdout.WriteString(err.Error())
	}
	// Output:
	// filled: BTC
	// order: done
}
