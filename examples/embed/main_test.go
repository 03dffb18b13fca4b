package main

import "os"

func Example() {
	if err := run(); err != nil {
		os.Stdout.WriteString(err.Error())
	}
	// Output:
	// ping: pong
	// 200 {"v":2,"r":2,"m":"ping","n":"AAAAAAAAAAAAAAAAAAAAAQ==","u":"200","g":"success","d":"pong"}
}
