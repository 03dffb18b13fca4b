package owtp_test

import (
	"os"
	"testing"

	"github.com/owtp-go/owtp/transport/transporttest"
)

func TestMain(m *testing.M) { os.Exit(transporttest.RunMain(m)) }
