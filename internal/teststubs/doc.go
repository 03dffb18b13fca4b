// Package teststubs has generated clients and servers for tests: a service of a
// wallet, and one of its clients, which the wallet calls back.
package teststubs
