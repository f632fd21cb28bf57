package cmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"kontiki/client"
)

// process is a node that runs as a process of its own.
type process struct {
	name, dir             string
	cluster, api, ingress string // addresses
	engine                string
	cmd                   *exec.Cmd     // nil while it does not run
	ended                 chan struct{} // closed when cmd has ended
}

// newProcess chooses a node's addresses.
func newProcess(dir, name, engine string) (*process, error) {
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	return &process{name: name, dir: filepath.Join(dir, name), engine: engine, cluster: ports[0], api: ports[1], ingress: ports[2]}, nil
}

// freePorts gives loopback addresses nobody listens on.
func freePorts(n int) ([]string, error) {
	addrs := make([]string, n)
	for i := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close()
		addrs[i] = l.Addr().String()
	}
	return addrs, nil
}

func (p *process) addressFlags() []string {
	return []string{"--data", p.dir, "--node", p.name, "--advertise", "127.0.0.1", "--cluster-addr", p.cluster, "--api-addr", p.api,
		"--ingress-addr", p.ingress, "--engine", p.engine}
}

// run executes one of our own commands to its end and gives what it printed.
func (p *process) run(ctx context.Context, stdin string, args ...string) ([]byte, error) {
	cmd, err := ownCommand(args...)
	if err != nil {
		return nil, err
	}
	var out, problems bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &problems
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start kontiki %s: %w", args[0], err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("kontiki %s for %s: %w: %s", args[0], p.name, err, strings.TrimSpace(problems.String()))
	}
	return out.Bytes(), nil
}

// ownCommand runs this binary again, away from our terminal's signals and from the user's own settings.
func ownCommand(args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.Command(self, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "KONTIKI_") || strings.HasPrefix(v, "KONTIKI_FAULT") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	return cmd, nil
}

// start runs the node's server; its log goes to a file.
func (p *process) start() error {
	cmd, err := ownCommand("server", "--data", p.dir, "--engine", p.engine, "--log-format", "json")
	if err != nil {
		return err
	}
	log, err := os.OpenFile(p.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log of %s: %w", p.name, err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start node %s: %w", p.name, err)
	}
	p.cmd, p.ended = cmd, make(chan struct{})
	go func(ended chan struct{}) {
		_ = cmd.Wait() // how it ended does not matter here; its log says it
		close(ended)
	}(p.ended)
	return nil
}

// ready waits until the node knows a leader and has caught up.
func (p *process) ready(ctx context.Context, c *client.Client) error {
	return await(ctx, "node "+p.name+" to be ready", func(ctx context.Context) (bool, error) {
		if !p.running() {
			return false, errors.New("its process has ended:\n" + p.lastLines(5))
		}
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		err := c.Ready(ctx)
		return err == nil, err
	})
}

func (p *process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// kill ends the process at once, as a crash would.
func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill node %s: %w", p.name, err)
	}
	<-p.ended
	return nil
}

// end stops the process in good order, or at once when that takes long.
func (p *process) end() {
	if !p.running() {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // when it has ended by itself, the wait below sees it
	select {
	case <-p.ended:
	case <-time.After(8 * time.Second):
		_ = p.kill() // nothing is left to try
	}
}

func (p *process) logFile() string { return p.dir + ".log" }

// lastLines gives the end of the node's log.
func (p *process) lastLines(n int) string {
	b, err := os.ReadFile(p.logFile())
	if err != nil {
		return "    (no log)"
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return "    " + strings.Join(lines[max(0, len(lines)-n):], "\n    ")
}
