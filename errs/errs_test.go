package errs

import (
	"errors"
	"fmt"
	"io"
	"net/http"
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
