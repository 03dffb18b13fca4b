// Package amqpt carries messages through RabbitMQ: one OWTP message is one AMQP
// message, which the broker confirms when it is published and which is
// acknowledged when its answer has been (PROTOCOL §7).
//
// # Queues
//
//   - Config.ReadQueueName is the node's, shared by its replicas: durable, a
//     quorum queue, at most MaxQueueLength messages (more are refused, the caller
//     gets 503) which live at most MaxQueueTime.
//   - The same name and ".dead" is where the broker puts what it gave to a
//     consumer deliveryLimit times in vain, what could not be read or handled,
//     and what expired: the newest deadLength messages for deadTime. Nobody
//     consumes it; operators look into it, and its x-death headers say why.
//   - OwnQueuePrefix+Name+"."+random is for requests to this very endpoint, and
//     ReplyQueuePrefix and the same rest for answers: exclusive, gone with the
//     connection, declared again with the same name when it is restored.
//
// They lie on the default exchange. With Config.Exchange they are bound to that
// exchange with their names as keys, and everything is published there; it must
// exist and be a direct or topic exchange. An exchange that copies (fanout) gives
// everybody everybody's messages, which are then dropped.
//
// RabbitMQ closes a channel that owes an acknowledgement for consumer_timeout, by
// default half an hour: it must be longer than handlers take.
//
// # Version 1
//
// With Config.Legacy, what has the content type text/plain in the node's queues
// is a message of protocol version 1 (legacy.go). Its nodes name an exchange, the
// queue that they read, which they declare themselves, and the queue that they
// write to: Config.Exchange and Config.ReadQueueName here, while the handler says
// where answers go. That queue is not declared here, or its reader could not.
//
// Legacy dials as such a node does (v1dial.go): the two queues are a connection.
// Config.ReadQueueName is declared without arguments unless it is there, bound,
// and consumed exclusively; what goes to Config.WriteQueueName is mandatory and
// expires. The least that it needs: configure READQUEUE, write READQUEUE and
// EXCHANGE, read READQUEUE and EXCHANGE.
//
// # Permissions
//
// RabbitMQ's least for a node named NAME that listens on QUEUE, as regular
// expressions with the names escaped (rabbitmqctl set_permissions -p VHOST USER
// CONFIGURE WRITE READ):
//
//	configure  ^(QUEUE|QUEUE\.dead|owtp\.(own|reply)\.NAME\..*)$
//	write      ^amq\.default$
//	read       ^(QUEUE|owtp\.(own|reply)\.NAME\..*)$
//
// and for one that only calls:
//
//	configure  ^owtp\.reply\.NAME\..*$
//	write      ^amq\.default$
//	read       ^owtp\.reply\.NAME\..*$
//
// With Config.Exchange, EXCHANGE stands in place of amq\.default, is added to
// read, and all names of configure are added to write: a queue is bound by who
// may write to it and read from the exchange.
//
// Whoever may write to the default exchange may write to every queue of the
// virtual host. Messages of others are therefore nothing special here: they are
// bounded, counted and dropped, and what they say is believed only where the
// node verifies it.
package amqpt
