package owtp_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/owtp-go/owtp"
)

// A face may sit anywhere in a mux of the program's.
func TestAddressWithPath(t *testing.T) {
	host := owtp.RandomOWTPNode()
	defer host.Close()
	if err := host.HandleFunc("echo", echo); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for path, build := range map[string]func(owtp.ConnectConfig) (http.Handler, error){"/a/http": host.HTTPHandler, "/b/ws": host.WebsocketHandler} {
		face, err := build(owtp.ConnectConfig{})
		if err != nil {
			t.Fatal(err)
		}
		mux.Handle(path, face)
	}
	server := httptest.NewServer(mux)
	defer server.Close()
	addr := strings.TrimPrefix(server.URL, "http://")
	client := owtp.RandomOWTPNode()
	defer client.Close()
	for connectType, path := range map[string]string{owtp.HTTP: "/a/http", owtp.Websocket: "/b/ws"} {
		if err := client.Connect(connectType, owtp.ConnectConfig{Address: addr + path, ConnectType: connectType, EnableKeyAgreement: true}); err != nil {
			t.Fatal(err)
		}
		resp, err := client.CallSync(connectType, "echo", "x")
		if err != nil || resp.JsonData().String() != "x" {
			t.Errorf("%s: %v, %v", connectType, resp, err)
		}
		if err := client.Connect("elsewhere", owtp.ConnectConfig{Address: addr + "/nowhere", ConnectType: connectType, EnableSignature: true}); err == nil {
			t.Errorf("%s: connected where nothing is mounted", connectType)
		}
		for _, bad := range []string{addr + "/a b\x00", addr + "/?q=1", addr + "/#f", "/only/path"} {
			if err := client.Connect("bad", owtp.ConnectConfig{Address: bad, ConnectType: connectType}); err == nil || !strings.Contains(err.Error(), "address") {
				t.Errorf("%s %q: %v", connectType, bad, err)
			}
		}
	}
	if err := host.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0/path", ConnectType: owtp.HTTP}); err == nil {
		t.Error("a listener took a path")
	}
}
