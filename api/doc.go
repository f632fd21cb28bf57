// Package api has the shapes of the HTTP API's requests and answers, so that server, client and CLI speak of the same
// things. The objects of the replicated state (deployments, projects, nodes, repairs, audit records) are answered as
// package fsm has them; here is what is not state. Times are RFC 3339 in UTC, durations Go duration strings.
//
// It holds plain data only: values may be shared as long as nobody changes them.
package api

import "kontiki/errs"

// The headers with a meaning of their own.
const (
	HeaderIndex      = "X-Kontiki-Index"        // answer: the log index the answer reflects at least
	HeaderMinIndex   = "X-Kontiki-Min-Index"    // request: wait until the node has applied this index
	HeaderLeader     = "X-Kontiki-Known-Leader" // answer: ID of the leader the node knows, absent when it knows none
	HeaderStale      = "X-Kontiki-Stale-Ms"     // answer: milliseconds since the node last heard of a leader; 0 on it
	HeaderNode       = "X-Kontiki-Node"         // answer: ID of the node that answered
	HeaderRequestID  = "X-Request-Id"           // both: names the request in logs and errors
	HeaderKey        = "Idempotency-Key"        // request: makes a write safe to repeat
	HeaderReplayed   = "Idempotency-Replayed"   // answer: "true" when the write had been done before
	HeaderLastEvent  = "Last-Event-ID"          // request: resume a stream of events after this log index
	ContentTypeJSON  = "application/json"
	ContentTypeEvent = "text/event-stream"
)

// ErrorBody is the answer to every request that is refused or fails.
type ErrorBody struct {
	Error Error `json:"error"`
}

// Error is an errs.Error with the request it answers.
type Error struct {
	errs.Error
	RequestID string `json:"request_id,omitempty"`
}

// Page is a part of a list. NextCursor asks for the next part, it is empty on the last.
type Page[T any] struct {
	Items      []T    `json:"items"`
	NextCursor string `json:"next_cursor,omitempty"`
}
