package errs

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestCodeSurvivesWrapping(t *testing.T) {
	err := fmt.Errorf("create project: %w", New(Exists, "project %q exists", "hello").WithHint("choose another name"))
	if CodeOf(err) != Exists || Status(CodeOf(err)) != http.StatusConflict {
		t.Fatalf("code %q", CodeOf(err))
	}
	if !errors.Is(err, New(Exists, "")) || errors.Is(err, New(NotFound, "")) {
		t.Fatal("Is compares codes")
	}
	if got := From(err).Error(); got != `project "hello" exists (choose another name)` {
		t.Fatal(got)
	}
}

func TestNewKeepsTheCause(t *testing.T) {
	err := New(DiskFull, "write blob: %w", io.ErrShortWrite)
	if !errors.Is(err, io.ErrShortWrite) {
		t.Fatal("cause lost")
	}
	if CodeOf(io.EOF) != Internal || CodeOf(nil) != "" || From(nil) != nil {
		t.Fatal("foreign errors are internal, nil stays nil")
	}
}

func madeHere() *Error { return New(Internal, "made").WithHint("look") }

func TestStackNamesWhereTheErrorWasMade(t *testing.T) {
	stack := madeHere().Stack()
	lines := strings.Split(stack, "\n")
	if len(lines) < 2 || len(lines) > mostFrames || !strings.HasPrefix(lines[0], "kontiki/errs.madeHere (errs_test.go:") ||
		!strings.HasPrefix(lines[1], "kontiki/errs.TestStackNamesWhereTheErrorWasMade (errs_test.go:") {
		t.Errorf("the stack is\n%s", stack)
	}
	for _, line := range lines {
		if i := strings.LastIndexByte(line, '('); strings.Contains(line[i:], "/") {
			t.Errorf("%q tells the machine's folders", line)
		}
	}
	if got := From(fmt.Errorf("foreign: %w", io.EOF)).Stack(); !strings.Contains(got, "TestStackNames") {
		t.Errorf("of a foreign error: %s", got)
	}
	if got := (&Error{Code: Internal}).Stack(); got != "" {
		t.Errorf("of an error that was read: %s", got)
	}
}

func TestEveryCodeHasAStatus(t *testing.T) {
	for code, status := range statuses {
		if Status(code) != status || status < 400 {
			t.Errorf("%s: %d", code, status)
		}
	}
	if Status("nonsense") != http.StatusInternalServerError {
		t.Error("unknown codes are internal")
	}
}
