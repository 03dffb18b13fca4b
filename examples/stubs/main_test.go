package main

import (
	"context"
	"os"
)

func Example() {
	if err := run(context.Background()); err != nil {
		os.Stdout.WriteString(err.Error())
	}
	// Output:
	// balance 100
	// moved 60 to bob
	// left 40
	// not enough money missing 20
	// close 404
}
