package main

import (
	"strings"
	"testing"

	"github.com/owtp-go/owtp"
)

const anID = "Ra4MVzfkAHeTTtNrJyHqBrM43p2UxrTi2i9kduxECm7"

// What the flags add to the address of a broker, and what they contradict.
func TestQueueFlags(t *testing.T) {
	for _, tc := range []struct {
		address, peer string
		q             queueFlags
		want, account string
	}{
		{"nats://a:1", anID, queueFlags{}, "nats://a:1#owtp.node." + anID, ""},
		{"nats://a:1#q", anID, queueFlags{}, "nats://a:1#q", ""},
		{"nats://me@a:1", "", queueFlags{queue: "q"}, "nats://a:1#q", "me"},
		{"amqps://a/v", "", queueFlags{queue: "q", account: "me"}, "amqps://a:5671/v#q", "me"},
		{"nats://me@a:1#q", "", queueFlags{queue: "q", account: "me"}, "nats://a:1#q", "me"},
		{"http://a:1", anID, queueFlags{}, "http://a:1", ""},
	} {
		a, err := parseAddress(tc.address)
		if err == nil {
			err = tc.q.apply(&a, tc.peer)
		}
		if err != nil || a.String() != tc.want || a.account != tc.account {
			t.Errorf("%+v: %s as %q, %v", tc, a, a.account, err)
		}
	}
	for _, tc := range []struct {
		address, peer string
		q             queueFlags
		want          string
	}{
		{"nats://a:1", "", queueFlags{}, "many nodes"},
		{"nats://a:1", "nobody", queueFlags{}, "--peer"},
		{"nats://a:1#q", "", queueFlags{queue: "r"}, "names the queue q"},
		{"nats://me@a:1#q", "", queueFlags{account: "you"}, "names the account me"},
		{"nats://a:1", "", queueFlags{queue: "a b"}, "letters, digits"},
		{"nats://a:1", "", queueFlags{queue: strings.Repeat("q", 250)}, "too long"},
		{"http://a:1", "", queueFlags{queue: "q"}, "are for brokers"},
		{"ws://a:1", "", queueFlags{passwordFile: "f"}, "are for brokers"},
	} {
		a, err := parseAddress(tc.address)
		if err != nil {
			t.Fatal(err)
		}
		if err := tc.q.apply(&a, tc.peer); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v, want %q", tc, err, tc.want)
		}
	}
}

// Only a queue with the default name of a node says whose it is.
func TestQueueOwner(t *testing.T) {
	for queue, want := range map[string]bool{nodeQueue + anID: true, nodeQueue + "me": false, nodeQueue: false, anID: false, "": false} {
		a := peerAddress{scheme: "nats", host: "a", port: "1", queue: queue}
		if id, ok := a.owner(); ok != want || ok && id.String() != anID {
			t.Errorf("%q: %v, %v", queue, id, ok)
		}
	}
	// The library and this tool mean the same name.
	n := owtp.RandomOWTPNode()
	defer n.Close()
	if err := n.Listen(owtp.ConnectConfig{ConnectType: owtp.MQ, Address: "nats://127.0.0.1:1", ReadQueueName: nodeQueue + n.NodeID()}); err == nil || strings.Contains(err.Error(), "ReadQueueName") {
		t.Errorf("listening where no broker is: %v", err)
	}
}

func TestClear(t *testing.T) {
	for text, want := range map[string]bool{
		"nats://127.0.0.1": false, "nats://localhost": false, "nats://[::1]": false, "amqps://mq.example": false, "tls://10.0.0.1": false,
		"amqp://mq.example": true, "nats://10.0.0.1": true,
	} {
		if a, err := parseAddress(text); err != nil || a.clear() != want {
			t.Errorf("%s: %v, %v", text, a.clear(), err)
		}
	}
}

func TestSize(t *testing.T) {
	for in, want := range map[string]string{"0": "0", "1": "1", "1024": "1KiB", "512MiB": "512MiB", "1048577": "1048577", "2GiB": "2GiB"} {
		var s size
		if err := s.Set(in); err != nil || s.String() != want {
			t.Errorf("%s: %s, %v", in, s, err)
		}
	}
	for _, in := range []string{"", "-1", "1MB", "MiB", "1.5GiB", "9223372036854775807GiB", "1e3"} {
		var s size
		if err := s.Set(in); err == nil {
			t.Errorf("%q is %d", in, s)
		}
	}
}
