//go:build !unix

package memory_test

import "time"

func processorTime() time.Duration { return 0 }
