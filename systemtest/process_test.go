// Package systemtest runs clusters of real processes on loopback and kills, stops, damages and isolates them.
//
// Every test makes its own cluster, in its own directory and on ports outside the range from which the kernel takes
// those of outgoing connections, so that a node finds its ports free when it comes back. Tests wait for conditions, with
// deadlines that only a defect exceeds. All processes are ended when their test ends; should the test itself be killed,
// the kernel ends them. The nodes' logs are shown when a test fails.
//
// KONTIKI_BINARY names a binary to test instead of one that is built from the tree.
package systemtest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var (
	buildDir string
	runDirs  []string
)

func TestMain(m *testing.M) {
	code := m.Run()
	for _, dir := range append(runDirs, buildDir) {
		if dir != "" {
			_ = os.RemoveAll(dir) // the exit code is that of the tests
		}
	}
	os.Exit(code)
}

// runDir gives a directory that is removed when all tests are over, not when this one is: a file system may be slow to
// make files for minutes after many were deleted, which would be measured in the tests that follow.
func runDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kontiki-systemtest-")
	if err != nil {
		t.Fatal(err)
	}
	runDirs = append(runDirs, dir)
	return dir
}

// binary builds kontiki, once per run, and gives its path.
var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("KONTIKI_BINARY"); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "kontiki-systemtest-")
	if err != nil {
		return "", fmt.Errorf("make a folder for the binary: %w", err)
	}
	buildDir = dir
	path := filepath.Join(dir, "kontiki")
	build := exec.Command("go", "build", "-o", path, "kontiki/cmd/kontiki")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build kontiki: %w\n%s", err, out)
	}
	return path, nil
})

// ports are the addresses a node listens on, host:port.
type ports struct{ cluster, api, ingress string }

var (
	portMu   sync.Mutex
	nextPort = 20000 + rand.IntN(10000)
)

// freePorts gives addresses that nobody listens on, each only once per run.
func freePorts(t testing.TB) ports {
	t.Helper()
	portMu.Lock()
	defer portMu.Unlock()
	var found []string
	for tries := 0; len(found) < 3; tries++ {
		if tries > 5000 {
			t.Fatal("no free port")
		}
		if nextPort++; nextPort >= 32000 {
			nextPort = 20000
		}
		addr := fmt.Sprintf("127.0.0.1:%d", nextPort)
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = l.Close() // it only showed that the port is free
			found = append(found, addr)
		}
	}
	return ports{found[0], found[1], found[2]}
}

// node is one member of a cluster: its directory, and the process that runs on it, if any.
type node struct {
	name string
	dir  string
	ports
	env    []string // of its next process, beside the usual
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the process has ended
	paused bool
}

func (n *node) data(parts ...string) string {
	return filepath.Join(append([]string{n.dir, "data"}, parts...)...)
}

func (n *node) logFile() string { return filepath.Join(n.dir, "log") }

// command makes a call of the binary that belongs to the node.
func (n *node) command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append([]string{"HOME=" + n.dir, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir()}, n.env...)
	return cmd
}

// run makes a call that is expected to work and gives what it prints.
func (n *node) run(t testing.TB, args ...string) []byte {
	t.Helper()
	cmd := n.command(t, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kontiki %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return out
}

// start runs the node's server and does not wait for it to be ready.
func (n *node) start(t testing.TB) {
	t.Helper()
	if n.alive() {
		t.Fatalf("node %s runs already", n.name)
	}
	log, err := os.OpenFile(n.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := n.command(t, "server", "--data", n.data(), "--engine", "embedded")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start node %s: %v", n.name, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // how it ended is in its state
	}()
	n.cmd, n.ended = cmd, ended
}

func (n *node) alive() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.ended:
		return false
	default:
		return true
	}
}

func (n *node) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if !n.alive() {
		t.Fatalf("signal %s: node %s does not run", s, n.name)
	}
	if err := n.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatalf("signal %s to node %s: %v", s, n.name, err)
	}
}

// awaitEnd waits until the node's process is gone and gives how it ended.
func (n *node) awaitEnd(t testing.TB, within time.Duration) *os.ProcessState {
	t.Helper()
	select {
	case <-n.ended:
	case <-time.After(within):
		t.Fatalf("node %s still runs after %s", n.name, within)
	}
	return n.cmd.ProcessState
}

// kill ends the node as a crash does.
func (n *node) kill(t testing.TB) {
	t.Helper()
	n.signal(t, syscall.SIGKILL)
	n.paused = false
	n.awaitEnd(t, 10*time.Second)
}

// stop ends the node in the orderly way.
func (n *node) stop(t testing.TB) {
	t.Helper()
	n.signal(t, syscall.SIGTERM)
	if s := n.awaitEnd(t, 30*time.Second); !s.Success() {
		t.Errorf("node %s was asked to stop and ended with %s", n.name, s)
	}
}

// pause keeps the process from running at all, resume lets it go on.
func (n *node) pause(t testing.TB) { t.Helper(); n.signal(t, syscall.SIGSTOP); n.paused = true }

func (n *node) resume(t testing.TB) { t.Helper(); n.signal(t, syscall.SIGCONT); n.paused = false }

// end makes sure that nothing runs any more.
func (n *node) end(t testing.TB) {
	if n.alive() {
		_ = n.cmd.Process.Kill() // it may end by itself meanwhile
		n.awaitEnd(t, 10*time.Second)
	}
}

// lastLines gives the end of the node's log.
func (n *node) lastLines(most int) string {
	b, err := os.ReadFile(n.logFile())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}

// await asks again and again until there is no error; the last one tells what is missing.
func await(t testing.TB, what string, within time.Duration, check func() error) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not within %s: %v", what, within, err)
		}
	}
}
