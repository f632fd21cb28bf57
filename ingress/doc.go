// Package ingress takes user traffic on every node and leads it to the release that the committed state says, on any
// node that has it.
//
// Routing is a pure function of committed state (Resolve), evaluated for each request on a fresh view, so a switch of
// versions takes effect with the log entry that commits it and there is no table that could lag behind. A release on
// this node is served through Local; one on another node is relayed through that node's RelayHandler, which is mounted
// on the listener between nodes (mTLS) only. A request that can be repeated without harm goes to the next instance when
// one fails before it has answered.
//
// All exported functions and methods are safe for concurrent use.
package ingress
