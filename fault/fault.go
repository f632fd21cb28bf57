// Package fault names the points around every effect so that tests can crash, stop or fail a process exactly there.
//
// In normal use a point costs one atomic load. KONTIKI_FAULT arms points, as a comma-separated list of name=action:
//
//	agent.extract.after=kill           kill -9 of the own process, the first time the point is reached
//	agent.extract.after=error          Point returns ErrInjected, the first time
//	agent.extract.after=hold           wait until the file <KONTIKI_FAULT_DIR>/<name>.release appears, the first time
//
// With KONTIKI_FAULT_DIR set, every point that is reached leaves the file <dir>/<name>.reached behind, and every
// action that is carried out leaves <dir>/<name>.fired: a test asserts that its fault fired. "First time" is counted
// over the directory, so a restarted process does not die at the same point again.
//
// All functions are safe for concurrent use.
package fault

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrInjected is what a point armed with "error" returns.
var ErrInjected = errors.New("injected fault")

type injector struct {
	dir     string
	actions map[string]string
	mu      sync.Mutex
	reached map[string]bool
}

var armed atomic.Pointer[injector]

func init() {
	if err := Arm(os.Getenv("KONTIKI_FAULT"), os.Getenv("KONTIKI_FAULT_DIR")); err != nil {
		fmt.Fprintln(os.Stderr, "kontiki:", err)
		os.Exit(2)
	}
}

// Arm replaces what is armed: spec as described in the package comment, dir for the reached and fired marks (may be
// empty when no action is armed). Arm("", "") disarms everything.
func Arm(spec, dir string) error {
	if spec == "" && dir == "" {
		armed.Store(nil)
		return nil
	}
	in := &injector{dir: dir, actions: map[string]string{}, reached: map[string]bool{}}
	for _, part := range strings.FieldsFunc(spec, func(r rune) bool { return r == ',' }) {
		name, action, ok := strings.Cut(part, "=")
		if !ok || (action != "kill" && action != "error" && action != "hold") {
			return fmt.Errorf("KONTIKI_FAULT: %q is not name=kill, name=error or name=hold", part)
		}
		in.actions[name] = action
	}
	if dir == "" {
		return errors.New("KONTIKI_FAULT needs KONTIKI_FAULT_DIR, the folder for its marks")
	}
	armed.Store(in)
	return nil
}

// Point is reached when the process comes by. It returns nil, always so when nothing is armed, or ErrInjected.
func Point(name string) error {
	in := armed.Load()
	if in == nil {
		return nil
	}
	return in.reach(name)
}

func (in *injector) reach(name string) error {
	in.mu.Lock()
	first := !in.reached[name]
	in.reached[name] = true
	in.mu.Unlock()
	if first {
		in.mark(name + ".reached")
	}
	action := in.actions[name]
	if action == "" || !in.mark(name+".fired") {
		return nil
	}
	switch action {
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "hold":
		in.hold(name)
		return nil
	}
	return fmt.Errorf("%s: %w", name, ErrInjected)
}

// mark creates the file and reports whether it was this call that did.
func (in *injector) mark(file string) bool {
	f, err := os.OpenFile(filepath.Join(in.dir, file), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

func (in *injector) hold(name string) {
	for {
		if _, err := os.Stat(filepath.Join(in.dir, name+".release")); err == nil {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}
