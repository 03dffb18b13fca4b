package owtp_test

import (
	"testing"

	"github.com/owtp-go/owtp"
)

// What a listener may be told of version 1, and in which words it refuses.
func TestV1Configurations(t *testing.T) {
	t.Parallel()
	n := randomNode(t)
	for want, set := range map[string]func(*owtp.ConnectConfig){
		"V1Cert has no meaning without AllowV1":                   func(c *owtp.ConnectConfig) { c.V1Cert = owtp.NewRandomCertificate() },
		"AllowV1Peers has no meaning without AllowV1":             func(c *owtp.ConnectConfig) { c.AllowV1Peers = []string{} },
		"InsecureV1TrustAgreement has no meaning without AllowV1": func(c *owtp.ConnectConfig) { c.InsecureV1TrustAgreement = true },
		"InsecureV1BareText has no meaning without AllowV1":       func(c *owtp.ConnectConfig) { c.InsecureV1BareText = true },
		"InsecureV1PacketVersion0 has no meaning without AllowV1": func(c *owtp.ConnectConfig) { c.InsecureV1PacketVersion0 = true },
		"InsecureV1AnyTime has no meaning without AllowV1":        func(c *owtp.ConnectConfig) { c.InsecureV1AnyTime = true },
		`version 1 does not exist for "mem"`: func(c *owtp.ConnectConfig) {
			c.AllowV1, c.ConnectType, c.Address = true, owtp.Memory, "x"
		},
		"needs AllowV1Peers": func(c *owtp.ConnectConfig) { c.AllowV1, c.AllowPeers = true, []string{n.NodeID()} },
		"contradicts": func(c *owtp.ConnectConfig) {
			c.AllowV1, c.EnableSignature, c.InsecureV1TrustAgreement = true, true, true
		},
		"ConnectConfig.AllowV": func(c *owtp.ConnectConfig) { c.AllowV1, c.AllowV1Peers = true, []string{"v1:" + n.NodeID()} },
	} {
		cfg := owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.HTTP}
		set(&cfg)
		wantErr(t, n.Listen(cfg), want)
	}
	for _, name := range []string{"AllowV1", "V1Cert", "AllowV1Peers", "InsecureV1TrustAgreement", "InsecureV1BareText", "InsecureV1AnyTime", "InsecureV1PacketVersion0"} {
		cfg := owtp.ConnectConfig{Address: "127.0.0.1:1", ConnectType: owtp.HTTP}
		switch name {
		case "AllowV1":
			cfg.AllowV1 = true
		case "V1Cert":
			cfg.V1Cert = owtp.NewRandomCertificate()
		case "AllowV1Peers":
			cfg.AllowV1Peers = []string{}
		case "InsecureV1TrustAgreement":
			cfg.InsecureV1TrustAgreement = true
		case "InsecureV1BareText":
			cfg.InsecureV1BareText = true
		case "InsecureV1AnyTime":
			cfg.InsecureV1AnyTime = true
		case "InsecureV1PacketVersion0":
			cfg.InsecureV1PacketVersion0 = true
		}
		wantErr(t, n.Connect("x", cfg), name, "listener")
		cfg.Version = 2
		wantErr(t, n.Connect("x", cfg), name, "listener")
		if name != "V1Cert" && name != "InsecureV1BareText" && name != "InsecureV1TrustAgreement" && name != "InsecureV1PacketVersion0" {
			cfg.Version = 1
			wantErr(t, n.Connect("x", cfg), name, "listener")
		}
	}
	must(t, n.Listen(owtp.ConnectConfig{
		Address: "127.0.0.1:0", ConnectType: owtp.HTTP, EnableSignature: true, AllowPeers: []string{n.NodeID()},
		AllowV1: true, AllowV1Peers: []string{owtp.NewRandomCertificate().ID()}, V1Cert: owtp.NewRandomCertificate(), InsecureV1AnyTime: true, InsecureV1BareText: true, InsecureV1PacketVersion0: true,
	}))
}

// What a peer that is called in version 1 may be configured with, and in which
// words the rest is refused.
func TestV1CallConfigurations(t *testing.T) {
	t.Parallel()
	n := randomNode(t)
	for want, set := range map[string]func(*owtp.ConnectConfig){
		"Version is 3; it must be 1, 2 or 0":         func(c *owtp.ConnectConfig) { c.Version = 3 },
		"Version is -1":                              func(c *owtp.ConnectConfig) { c.Version = -1 },
		`Suites has "sm4"; version 1 has "aes" only`: func(c *owtp.ConnectConfig) { c.Suites = []string{"aes", "sm4"} },
		`version 1 does not exist for "mem"`:         func(c *owtp.ConnectConfig) { c.ConnectType = owtp.Memory },
		"InsecureV1TrustAgreement contradicts EnableSignature": func(c *owtp.ConnectConfig) {
			c.EnableSignature, c.InsecureV1TrustAgreement = true, true
		},
		"data format": func(c *owtp.ConnectConfig) { c.DataFormat = "x" },
		"belongs to a listener and has no meaning for C": func(c *owtp.ConnectConfig) { c.AllowPeers = []string{} },
	} {
		cfg := owtp.ConnectConfig{Address: "127.0.0.1:1", ConnectType: owtp.HTTP, Version: 1}
		set(&cfg)
		wantErr(t, n.Connect("x", cfg), want)
	}
	for _, version := range []int{1, 2} {
		wantErr(t, n.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.HTTP, Version: version}), "Version is for Connect")
	}
	all := owtp.ConnectConfig{
		Address: "127.0.0.1:1/path", ConnectType: owtp.HTTP, Version: 1, EnableSignature: true, Suites: []string{"aes"}, DataFormat: "json",
		V1Cert: owtp.NewRandomCertificate(), InsecureV1BareText: true, InsecureV1PacketVersion0: true, PeerID: owtp.NewRandomCertificate().ID(), ReadBufferSize: 1 << 12,
	}
	must(t, n.Connect("all", all)) // nothing goes out before a call
	must(t, n.Connect("all", all))
	all.Version = 2
	wantErr(t, n.Connect("all", all), "belongs to a listener with AllowV1 and has no meaning for Connect with Version 2")
	two := owtp.ConnectConfig{Address: "127.0.0.1:1", ConnectType: owtp.HTTP}
	must(t, n.Connect("two", two))
	two.Version = 2
	must(t, n.Connect("two", two)) // the same
	two.Version = 1
	wantErr(t, n.Connect("two", two), "another configuration")
}
