package fsm

import (
	"slices"

	"kontiki/errs"
)

// Body is the content of a command: one struct per kind.
type Body interface {
	// Kind is the command's kind.
	Kind() Kind
}

// NewCommand makes a command with a fresh ID and the local clock's time. actor is who asks.
func NewCommand(body Body, actor string) Command {
	return Command{ID: NewID(), Kind: body.Kind(), Time: Now(), Actor: actor, Body: encode(body)}
}

// NodeActor is the actor of what a node reports or decides by itself.
func NodeActor(node string) string { return "node:" + node }

// handler applies the commands of one kind.
type handler struct {
	apply   func(t *tx, cmd Command) (answer any, object string, err error)
	audited bool
}

var handlers = map[Kind]handler{}

// register makes a kind known. apply checks everything before it changes anything; it returns the answer (nil for
// none) or why the command is refused. object names what an audited command is about.
func register[T Body](audited bool, apply func(t *tx, cmd Command, b T) (any, error), object func(b T) string) {
	var zero T
	handlers[zero.Kind()] = handler{audited: audited, apply: func(t *tx, cmd Command) (any, string, error) {
		var b T
		if err := decode(cmd.Body, &b); err != nil {
			return nil, "", err
		}
		answer, err := apply(t, cmd, b)
		return answer, object(b), err
	}}
}

// Kinds lists every kind this version knows, sorted.
func Kinds() []Kind {
	var kinds []Kind
	for k := range handlers {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	return kinds
}

func notFound(what, name string) error {
	return errs.New(errs.NotFound, "there is no %s %q", what, clip(name))
}
