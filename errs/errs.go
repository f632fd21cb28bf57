// Package errs is the one table of errors a Kontiki user can meet: each has a stable code, an HTTP status and
// a message that says what happened, to what, and what to do next. The state machine, the API and the client
// share it, so a code means the same on both ends of a connection and nobody ever compares message strings.
package errs

import (
	"errors"
	"fmt"
	"net/http"
	"path"
	"runtime"
	"slices"
	"strings"
)

// Code is the stable, machine-readable name of an error.
type Code string

// The codes. The comment says when each is given; Status maps each to its HTTP status.
const (
	Invalid          Code = "invalid"         // a value in the request is not acceptable
	InvalidJSON      Code = "invalid_json"    // the body is not the JSON document that was expected
	UnknownField     Code = "unknown_field"   // the body or query has a field nobody reads
	InvalidArchive   Code = "invalid_archive" // the upload is not a safe, complete archive
	NoIndex          Code = "no_index"        // a static site has no index.html
	Unauthorized     Code = "unauthorized"    // no token, or one that is not known, expired or revoked
	Forbidden        Code = "forbidden"       // the token is good but its role is too low, or the origin is foreign
	NotFound         Code = "not_found"       // the named object does not exist
	MethodNotAllowed Code = "method_not_allowed"
	Exists           Code = "already_exists"     // an object with that name exists
	Conflict         Code = "conflict"           // the object is not in the state the request needs
	StaleReport      Code = "stale_report"       // a step report for a phase or attempt that is over
	IdempotencyReuse Code = "idempotency_reuse"  // the same Idempotency-Key came with another request
	TooLarge         Code = "too_large"          // the body is over the limit
	UnsupportedType  Code = "unsupported_type"   // the Content-Type is not one the route reads
	TooMany          Code = "too_many_requests"  // a limit is reached, try again after Retry-After
	NoLeader         Code = "no_leader"          // there is no leader that can take the write
	NotLeader        Code = "not_leader"         // this node is not the leader (between nodes only)
	Unavailable      Code = "unavailable"        // the node cannot answer this now
	Timeout          Code = "timeout"            // the outcome is unknown: retry under the same Idempotency-Key
	DiskFull         Code = "disk_full"          // a node's disk has not enough room
	DockerTimeout    Code = "docker_timeout"     // the Docker engine did not answer within its deadline
	DockerError      Code = "docker_error"       // the Docker engine refused or failed
	BlobMissing      Code = "blob_missing"       // no reachable node holds the content
	Digest           Code = "digest_mismatch"    // content does not have the digest it was named by
	Unhealthy        Code = "unhealthy"          // the health check did not pass in time
	Deadline         Code = "deadline_exceeded"  // a phase took longer than its deadline
	Stuck            Code = "stuck"              // no heartbeat or progress within the stuck time
	NodeLost         Code = "node_lost"          // a participant is gone and nobody can take over
	RemovedPeer      Code = "removed_peer"       // a node that was removed came back under its old ID
	IdentityMismatch Code = "identity_mismatch"  // a node's identity and its data disagree
	JoinToken        Code = "invalid_join_token" // a join token is unknown, used or expired
	QuorumLoss       Code = "quorum_loss"        // the change would leave the cluster without a majority
	StateCorrupt     Code = "state_corrupt"      // stored state fails its checks
	UnknownCommand   Code = "unknown_command"    // a log entry of a kind this version does not know
	BadCommand       Code = "bad_command"        // a log entry that cannot be decoded
	Internal         Code = "internal"           // a defect of Kontiki
)

var statuses = map[Code]int{
	Invalid: http.StatusBadRequest, InvalidJSON: http.StatusBadRequest, UnknownField: http.StatusBadRequest,
	InvalidArchive: http.StatusUnprocessableEntity, NoIndex: http.StatusUnprocessableEntity,
	Unauthorized: http.StatusUnauthorized, Forbidden: http.StatusForbidden, NotFound: http.StatusNotFound,
	MethodNotAllowed: http.StatusMethodNotAllowed, Exists: http.StatusConflict, Conflict: http.StatusConflict,
	StaleReport: http.StatusConflict, IdempotencyReuse: http.StatusConflict,
	TooLarge: http.StatusRequestEntityTooLarge, UnsupportedType: http.StatusUnsupportedMediaType,
	TooMany: http.StatusTooManyRequests, NoLeader: http.StatusServiceUnavailable,
	NotLeader: http.StatusMisdirectedRequest, Unavailable: http.StatusServiceUnavailable,
	Timeout: http.StatusGatewayTimeout, DiskFull: http.StatusInsufficientStorage,
	DockerTimeout: http.StatusGatewayTimeout, DockerError: http.StatusBadGateway,
	BlobMissing: http.StatusServiceUnavailable, Digest: http.StatusUnprocessableEntity,
	Unhealthy: http.StatusBadGateway, Deadline: http.StatusGatewayTimeout, Stuck: http.StatusGatewayTimeout,
	NodeLost: http.StatusServiceUnavailable, RemovedPeer: http.StatusForbidden,
	IdentityMismatch: http.StatusConflict, JoinToken: http.StatusForbidden, QuorumLoss: http.StatusConflict,
	StateCorrupt: http.StatusInternalServerError, UnknownCommand: http.StatusBadRequest,
	BadCommand: http.StatusBadRequest, Internal: http.StatusInternalServerError,
}

// Error is an error a user can act on. Message says what happened and to what, Hint what to do next, Field which
// part of the input is meant (empty when none is).
type Error struct {
	Code    Code   `json:"code" cbor:"c"`
	Message string `json:"message" cbor:"m"`
	Field   string `json:"field,omitempty" cbor:"f,omitempty"`
	Hint    string `json:"hint,omitempty" cbor:"h,omitempty"`
	cause   error
	stack   []uintptr // where it was made; nil when it came from elsewhere
}

// mostFrames is how many frames of a stack an Error keeps.
const mostFrames = 16

// New makes an Error; the format and its arguments give the message. It remembers where it was made.
func New(code Code, format string, args ...any) *Error {
	wrapped := fmt.Errorf(format, args...)
	e := &Error{Code: code, Message: wrapped.Error(), cause: errors.Unwrap(wrapped)}
	var frames [mostFrames]uintptr
	e.stack = slices.Clone(frames[:runtime.Callers(2, frames[:])]) // without this function
	return e
}

// Stack says where the error was made: a line "function (file:line)" for each of the innermost calls, innermost first.
// It is empty for an error that was read from JSON or CBOR.
func (e *Error) Stack() string {
	if len(e.stack) == 0 {
		return ""
	}
	var b strings.Builder
	frames := runtime.CallersFrames(e.stack)
	for {
		f, more := frames.Next()
		if !strings.HasPrefix(f.Function, "runtime.") {
			fmt.Fprintf(&b, "%s (%s:%d)\n", f.Function, path.Base(f.File), f.Line)
		}
		if !more {
			return strings.TrimSuffix(b.String(), "\n")
		}
	}
}

// WithField names the part of the input that is meant and returns the error.
func (e *Error) WithField(field string) *Error { e.Field = field; return e }

// WithHint says what to do next and returns the error.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// Error gives the message, with the hint behind it when there is one.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + " (" + e.Hint + ")"
}

// Unwrap gives the error that %w in the format of New wrapped, or nil.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is an Error of the same code, so errors.Is(err, errs.New(errs.NotFound, "")) works.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// CodeOf gives the code of the first Error in err's chain, Internal for any other error and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}

// From gives the first Error in err's chain, or wraps err as Internal. From(nil) is nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return New(Internal, "%w", err)
}

// Status gives the HTTP status of a code; 500 for a code it does not know.
func Status(code Code) int {
	if s, ok := statuses[code]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// Transient reports whether trying the same again later can succeed without anybody changing the input.
func Transient(err error) bool {
	switch CodeOf(err) {
	case NoLeader, NotLeader, Unavailable, Timeout, DiskFull, DockerTimeout, DockerError, BlobMissing, Unhealthy,
		Deadline, NodeLost, Internal:
		return true
	}
	return false
}
