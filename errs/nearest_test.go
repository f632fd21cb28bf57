package errs

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	known := []string{"branch", "replicas", "node", "label"}
	for name, want := range map[string]string{"brnach": "branch", "Branch": "branch", "replica": "replicas", "nod": "node",
		"labl": "label", "zebra": "", "": "", strings.Repeat("x", 100): ""} {
		if got := Nearest(name, known); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
	if Nearest("x", nil) != "" {
		t.Error("nothing is known")
	}
}
