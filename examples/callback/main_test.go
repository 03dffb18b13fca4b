package main

import "os"

func Example() {
	if err := run(); err != nil {
		os.Stdout.WriteString(err.Error())
	}
	// Output:
	// news 1
	// news 2
	// news 3
	// subscribe: told
}
