package httpt_test

import (
	"testing"

	"github.com/owtp-go/owtp/internal/httpt"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

func newTransport() transport.Transport { return httpt.New() }

func anyPort(testing.TB) string { return "127.0.0.1:0" }

func TestConformance(t *testing.T) {
	t.Run("HTTP1", func(t *testing.T) {
		transporttest.TestTransport(t, newTransport, anyPort, transporttest.Options{})
	})
	t.Run("HTTP2", func(t *testing.T) {
		server, client := transporttest.TLSConfigs(t)
		transporttest.TestTransport(t, newTransport, anyPort, transporttest.Options{ServerTLS: server, ClientTLS: client})
	})
}
