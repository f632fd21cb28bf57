package fsm

import (
	"github.com/fxamacker/cbor/v2"

	"kontiki/errs"
)

// Kind names what a command does, as object.verb.
type Kind string

// Command is one proposed change of the replicated state.
type Command struct {
	// ID makes the command idempotent: the state machine remembers its result and answers a second command of the
	// same ID with it. At most 128 bytes; the client's Idempotency-Key (scoped to its token) or a fresh ULID.
	ID string `cbor:"1,keyasint"`
	// Kind selects the body's type.
	Kind Kind `cbor:"2,keyasint"`
	// Time is when the proposer made the command, Unix milliseconds of its own clock.
	Time Time `cbor:"3,keyasint"`
	// Actor is who asked: a token's name, or "node:<id>" for a node's own reports and decisions.
	Actor string `cbor:"4,keyasint,omitempty"`
	// Body is the CBOR form of the kind's struct.
	Body []byte `cbor:"5,keyasint"`
	// Request is a digest of the user's request; the same ID with another digest is refused as IdempotencyReuse.
	Request []byte `cbor:"6,keyasint,omitempty"`
	// Optional lets a version that does not know Kind skip the command; otherwise such a node stops.
	Optional bool `cbor:"7,keyasint,omitempty"`
	// Term fences a leader's decision: when it is not 0 the command takes effect only in an entry of that Raft term, so
	// what a deposed leader decided is refused whichever way it gets into the log.
	Term uint64 `cbor:"8,keyasint,omitempty"`
}

// Result is what applying a command gave, the same on every node.
type Result struct {
	// Index is the log index at which the command took effect, for a replay that of the first time.
	Index uint64 `cbor:"1,keyasint"`
	// Err is why the command was refused, nil when it took effect.
	Err *errs.Error `cbor:"2,keyasint,omitempty"`
	// Body is the CBOR form of the kind's answer, may be empty.
	Body []byte `cbor:"3,keyasint,omitempty"`
	// Replayed is set when a command of the same ID had been applied before.
	Replayed bool `cbor:"4,keyasint,omitempty"`
}

// Decode reads the result's answer into out.
func (r Result) Decode(out any) error { return decode(r.Body, out) }

var encMode, decMode = codecModes()

// codecModes gives CBOR in core deterministic form (one value has one encoding, which the state hash needs) and a
// decoder that refuses what could make it work without bound.
func codecModes() (cbor.EncMode, cbor.DecMode) {
	enc, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err) // constant options
	}
	dec, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: 16, MaxArrayElements: 1 << 20,
		MaxMapPairs: 1 << 16, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
	}.DecMode()
	if err != nil {
		panic(err) // constant options
	}
	return enc, dec
}

// Encode gives the command's bytes. It cannot fail: every field is of a type CBOR has.
func (c Command) Encode() []byte { return encode(c) }

// DecodeCommand reads what Encode gave; the error is of code BadCommand.
func DecodeCommand(b []byte) (Command, error) {
	var c Command
	err := decode(b, &c)
	return c, err
}

// EncodeResults and DecodeResults carry results between nodes.
func EncodeResults(r []Result) []byte { return encode(r) }

// DecodeResults reads what EncodeResults gave.
func DecodeResults(b []byte) ([]Result, error) {
	var r []Result
	err := decode(b, &r)
	return r, err
}

func encode(v any) []byte {
	b, err := encMode.Marshal(v)
	if err != nil {
		panic(err) // only structs of this package get here, and CBOR has all their types
	}
	return b
}

func decode(b []byte, out any) error {
	if err := decMode.Unmarshal(b, out); err != nil {
		return errs.New(errs.BadCommand, "decode: %w", err)
	}
	return nil
}
