// Package session keeps what a node must remember between requests: the
// sessions of its users, one per peer, and, under keys of their own, the node's
// state.
//
// There are two things in it. A [Provider] is a store of short records that
// expire; package session/memory is one, and who writes another implements
// Provider, calls [Register] in its init function and runs the suite in package
// session/sessiontest. A [Manager] keeps user sessions in a Provider: fields
// with Go values of any storable type, which come back with the same type
// whichever provider keeps them (see [RegisterType]).
//
// # Lifetime of a session
//
// The first Set of a field creates the session. It ends when nobody has used it
// for ManagerConfig.Maxlifetime seconds, when it is AbsoluteLifetime seconds
// old, or when it is destroyed. A session that has ended is invisible at once,
// whether or not anybody runs [Manager.GC].
//
// # Sealed at rest
//
// Where somebody else than this process could read the store, each session is
// sealed for its place, under ManagerConfig.StoreKey or the key of the node that
// the manager is given to; without either, reading and writing fail. What does
// not open is [ErrCorrupt] until it is destroyed. docs/SECURITY.md says how keys
// are changed while all goes on.
//
// # Changes at the same time
//
// A session is one record and every change is a compare-and-swap of it, so two
// requests that set two fields lose neither. A change that has seen a session
// never lands in another one: if the session that it read is destroyed before
// it has written, it fails with [ErrEnded] and writes nothing. [Session] says
// how far that reaches.
package session
