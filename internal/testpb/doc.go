// Package testpb has Protobuf messages for tests.
package testpb
