package memt_test

import (
	"testing"

	"github.com/owtp-go/owtp/internal/memt"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

func newTransport() transport.Transport { return memt.New() }

func TestConformance(t *testing.T) {
	name := func(t testing.TB) string { return t.Name() }
	transporttest.TestTransport(t, newTransport, name, transporttest.Options{})
}
