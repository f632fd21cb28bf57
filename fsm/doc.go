// Package fsm is Kontiki's replicated state: the objects, the commands that change them and the deterministic Apply
// that every node runs over the same log.
//
// Apply reads nothing but the state and the entry: no clock, no randomness, no I/O, and no map iteration decides
// anything. Whatever bytes come in, it answers with errors and never panics. The state machine is the workflow
// engine: the report that completes a phase of a deployment moves it to the next phase inside Apply.
//
// Concurrency: Apply, Snapshot and Restore are called by one goroutine (the Raft loop). Everything else may be called
// by any goroutine at any time; a State is a consistent view that never changes. Objects handed out are shared and
// must not be modified.
package fsm
