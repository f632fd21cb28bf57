package fsm

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kontiki/errs"
)

func TestCommandRoundTrip(t *testing.T) {
	c := NewCommand(ProjectUpdate{Name: "blog", Metadata: map[string]string{"b": "2", "a": "1"}}, NodeActor("n1"))
	c.Request, c.Optional, c.Term = []byte("r"), true, 4
	if !ValidID(c.ID) || c.Time == 0 || c.Actor != "node:n1" || c.Kind != "project.update" {
		t.Errorf("command is %+v", c)
	}
	got, err := DecodeCommand(c.Encode())
	if err != nil || !cmp.Equal(got, c) {
		t.Errorf("%v: %s", err, cmp.Diff(c, got))
	}
	if !bytes.Equal(got.Encode(), c.Encode()) {
		t.Error("one command has two encodings")
	}
	if other := NewCommand(Checkpoint{}, ""); other.ID == c.ID {
		t.Error("two commands have one ID")
	}
}

func TestResultsRoundTrip(t *testing.T) {
	in := []Result{{Index: 3, Body: []byte("x"), Replayed: true}, {Index: 4, Err: errs.New(errs.Conflict, "no").WithHint("yes").WithField("f")}}
	out, err := DecodeResults(EncodeResults(in))
	if err != nil || len(out) != 2 || !cmp.Equal(out[0], in[0]) {
		t.Fatalf("%+v, %v", out, err)
	}
	if e := out[1].Err; e.Code != errs.Conflict || e.Message != "no" || e.Hint != "yes" || e.Field != "f" {
		t.Errorf("error is %+v", e)
	}
	if _, err := DecodeResults([]byte{0xff}); errs.CodeOf(err) != errs.BadCommand {
		t.Errorf("nonsense gives %v", err)
	}
}

// What could make the decoder work without bound, or read one value in two ways, is refused.
func TestDecodeRefusals(t *testing.T) {
	body := encode(ProjectCreate{Name: "blog"})
	for name, b := range map[string][]byte{
		"nothing":              nil,
		"cut short":            body[:len(body)-1],
		"something left over":  append(bytes.Clone(body), 0),
		"a string, no map":     []byte("\x64blog"),
		"indefinite length":    []byte("\xbf\x64name\x64blog\xff"),
		"a tag":                []byte("\xc1\xa1\x64name\x64blog"),
		"invalid UTF-8":        []byte("\xa1\x64name\x61\xff"),
		"an array of 2^32":     []byte("\xa2\x64name\x61x\x67domains\x9a\xff\xff\xff\xff"),
		"a number as a string": []byte("\xa1\x64name\x01"),
		"nested without end":   append([]byte("\xa1\x67domains"), bytes.Repeat([]byte{0x81}, 5000)...),
	} {
		t.Run(name, func(t *testing.T) {
			m := three(t)
			c := m.stamp(ProjectCreate{})
			c.Body = b
			if r := m.send(c)[0]; errs.CodeOf(errOf(r)) != errs.BadCommand {
				t.Errorf("result is %+v", r)
			}
			if err := m.f.Halted(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestKinds(t *testing.T) {
	kinds := Kinds()
	if !slices.IsSorted(kinds) {
		t.Errorf("%v are not sorted", kinds)
	}
	for _, k := range []Kind{"cluster.init", "settings.put", "project.create", "project.update", "project.delete", "node.join",
		"node.update", "node.status", "node.remove", "node.left", "token.create", "token.revoke", "join_token.create", "blob.held", "checkpoint",
		"repair.order", "repair.report", "deployment.create", "deployment.start", "deployment.assign", "deployment.retry",
		"deployment.fail", "deployment.cancel", "step.report", "step.progress"} {
		if !slices.Contains(kinds, k) {
			t.Errorf("%s is not known", k)
		}
	}
}
