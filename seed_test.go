package owtp_test

import (
	"fmt"
	"testing"

	"github.com/owtp-go/owtp"
)

func TestSmoke(t *testing.T) {
	for _, ct := range []string{owtp.HTTP, owtp.Websocket, owtp.Memory} {
		for _, sign := range []bool{false, true} {
			for _, suite := range []string{"", "aes", "sm4"} {
				t.Run(fmt.Sprint(ct, sign, suite), func(t *testing.T) {
					host := owtp.RandomOWTPNode()
					defer host.Close()
					host.HandleFunc("getInfo", func(ctx *owtp.Context) {
						if sign || suite != "" {
							if err := ctx.SetSession("username", "kkk"); err != nil {
								t.Error(err)
							}
						}
						ctx.Resp = owtp.Response{Status: 0, Msg: "success", Result: map[string]any{"getInfo": "hi boy " + ctx.Params().Get("name").String()}}
					})
					addr := "127.0.0.1:0"
					if ct == owtp.Memory {
						addr = t.Name()
					}
					if err := host.Listen(owtp.ConnectConfig{Address: addr, ConnectType: ct, EnableSignature: sign}); err != nil {
						t.Fatal(err)
					}
					client := owtp.RandomOWTPNode()
					defer client.Close()
					if err := client.Connect("testhost", owtp.ConnectConfig{Address: host.ListenerAddr(ct), ConnectType: ct, EnableSignature: sign}); err != nil {
						t.Fatal(err)
					}
					if suite != "" {
						if err := client.KeyAgreement("testhost", suite); err != nil {
							t.Fatal(err)
						}
					}
					for range 3 {
						ran := false
						err := client.Call("testhost", "getInfo", map[string]any{"name": "chance"}, true, func(resp owtp.Response) {
							ran = true
							if got := resp.JsonData().Get("getInfo").String(); got != "hi boy chance" {
								t.Errorf("got %q, %+v", got, resp)
							}
						})
						if err != nil || !ran {
							t.Fatal(err, ran)
						}
					}
				})
			}
		}
	}
}
