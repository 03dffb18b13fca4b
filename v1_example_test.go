package owtp_test

import (
	"log"

	"github.com/owtp-go/owtp"
)

// A listener that nodes of protocol version 1 may call, too, under a key of its
// own towards them. docs/V1.md says what that protects.
func ExampleOWTPNode_Listen_version1() {
	node, faceForVersion1 := owtp.RandomOWTPNode(), owtp.NewRandomCertificate()
	defer node.Close()
	err := node.Listen(owtp.ConnectConfig{
		Address: ":9432", ConnectType: owtp.HTTP,
		EnableSignature: true, // version 1 peers must sign, too
		AllowV1:         true,
		V1Cert:          faceForVersion1, // better than the node's own key
		AllowV1Peers:    []string{"54dZTdotBmE9geGJmJcj7Qzm6fzNrEUJ2NcDwZYp2QEp"},
	})
	if err != nil {
		log.Fatal(err)
	}
}

// The same over RabbitMQ, where a node of version 1 names an exchange and two
// queues.
func ExampleOWTPNode_Listen_version1OverRabbitMQ() {
	node := owtp.RandomOWTPNode()
	defer node.Close()
	err := node.Listen(owtp.ConnectConfig{
		Address: "amqps://wallet@mq.example", ConnectType: owtp.MQ, AllowV1: true,
		Exchange:       "amq.direct", // theirs as well; they cannot use the nameless one
		ReadQueueName:  "to-server",  // their WriteQueueName
		WriteQueueName: "to-client",  // their ReadQueueName
	})
	if err != nil {
		log.Fatal(err)
	}
}

// A node of protocol version 1 that is called by its ID.
func ExampleOWTPNode_Connect_version1() {
	node, faceForVersion1 := owtp.RandomOWTPNode(), owtp.NewRandomCertificate()
	defer node.Close()
	err := node.Connect("54dZTdotBmE9geGJmJcj7Qzm6fzNrEUJ2NcDwZYp2QEp", owtp.ConnectConfig{
		Address: "127.0.0.1:9432", ConnectType: owtp.HTTP, Version: 1,
		EnableKeyAgreement: true, // nothing else tells who answers
		EnableSignature:    true,
		V1Cert:             faceForVersion1,
	})
	if err != nil {
		log.Fatal(err)
	}
}
