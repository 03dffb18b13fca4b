// Package owtppb is the messages of OWTP version 2 as generated from
// proto/owtp.proto and proto/value.proto, for programs that read or write them
// with a Protobuf library. What such a library writes has to be brought into the
// one strict encoding of docs/PROTOCOL.md 3.2 before it is sent or signed; a
// node does not use this package.
package owtppb
