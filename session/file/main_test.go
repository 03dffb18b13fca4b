package file_test

import (
	"os"
	"testing"

	"github.com/owtp-go/owtp/internal/leakcheck"
)

func TestMain(m *testing.M) { os.Exit(leakcheck.RunMain(m)) }
