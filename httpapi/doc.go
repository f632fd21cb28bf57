// Package httpapi is the HTTP API of a node: routes, authorisation, validation, errors, lists, streams of events.
//
// Every handler is the same on leader and follower: reads come from the node's own replica of the state, writes go
// through Replica.Propose, which finds the leader by itself, and are answered when this node has applied them. There
// is no forwarding of HTTP requests.
//
// The handler that New gives is safe for concurrent use, as everything in Deps must be. It starts no goroutines of
// its own; a stream of events lasts as long as its request's context, so a server that stops ends the BaseContext of
// its requests.
package httpapi
