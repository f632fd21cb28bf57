package node

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"kontiki/agent"
	"kontiki/api"
	"kontiki/cluster"
	"kontiki/errs"
	"kontiki/fault"
	"kontiki/fsm"
)

var _ agent.Logs = (*stepLogs)(nil)

// stepLogs keeps what this node's steps write: <dir>/<deployment>.log, a line each of time, phase-attempt, level and text.
// One file per deployment and not per step: creating files is the dearest part of a small deployment.
type stepLogs struct {
	dir  string
	node string
}

// stepWriter puts the step into each line. A line is one write, and appending writes are whole.
type stepWriter struct {
	*os.File
	step string
}

func (w stepWriter) Write(line []byte) (int, error) {
	stamp, text, _ := strings.Cut(string(line), " ")
	if _, err := w.File.WriteString(stamp + " " + w.step + " " + text); err != nil {
		return 0, err
	}
	return len(line), nil
}

// Create implements agent.Logs; each write must be one line that begins with a time and a space.
func (l *stepLogs) Create(deployment string, phase fsm.Phase, attempt int) (io.WriteCloser, error) {
	path, err := l.path(deployment)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(l.dir, 0o700); err == nil {
			f, err = os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open the step log: %w", err)
	}
	return stepWriter{f, fmt.Sprintf("%s-%d", phase, attempt)}, nil
}

func (l *stepLogs) path(deployment string) (string, error) {
	if !fsm.ValidID(deployment) {
		return "", errs.New(errs.Invalid, "%q is no deployment's ID", deployment).WithField("id")
	}
	return filepath.Join(l.dir, deployment+".log"), nil
}

// read gives this node's lines about a deployment.
func (l *stepLogs) read(deployment string) ([]api.LogLine, error) {
	path, err := l.path(deployment)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the step log: %w", err)
	}
	defer f.Close()
	var lines []api.LogLine
	in := bufio.NewScanner(f)
	for in.Scan() {
		if line, ok := l.parse(in.Text()); ok {
			lines = append(lines, line)
		}
	}
	return lines, in.Err()
}

// sweep removes the logs of deployments that the state knows no more, at most the greater of 5 and a fifth of them at a
// time; the rest goes with the next sweeps. A state without any deployment is no reason to remove anything: it may not
// have got here yet. The state is taken after the folder was read, so that it knows whatever had a log by then.
func (l *stepLogs) sweep(state func() *fsm.State) error {
	entries, err := os.ReadDir(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the step logs: %w", err)
	}
	s := state()
	logs, stale := 0, []string(nil)
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".log")
		if !ok || !fsm.ValidID(id) {
			continue // not ours
		}
		if logs++; s.Deployment(id) == nil {
			stale = append(stale, e.Name())
		}
	}
	if !hasDeployments(s) {
		return nil
	}
	for _, name := range stale[:min(len(stale), max(5, logs/5))] {
		if err := l.remove(name); err != nil {
			return err
		}
	}
	return nil
}

func hasDeployments(s *fsm.State) bool {
	for range s.Deployments("") {
		return true
	}
	return false
}

func (l *stepLogs) remove(name string) error {
	if err := fault.Point("node.logs.remove.before"); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(l.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove a step log: %w", err)
	}
	return fault.Point("node.logs.remove.after")
}

// sweepLogs sweeps the step logs now and every minute.
func (n *Node) sweepLogs(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		if err := n.logs.sweep(n.fsm.State); err != nil {
			n.cfg.Logger.Warn("old step logs stay", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// parse reads a line; one that a crash cut short is passed over.
func (l *stepLogs) parse(text string) (api.LogLine, bool) {
	stamp, rest, _ := strings.Cut(text, " ")
	step, rest, ok := strings.Cut(rest, " ")
	phase, attempt, _ := strings.Cut(step, "-")
	at, err1 := time.Parse(time.RFC3339Nano, stamp)
	n, err2 := strconv.Atoi(attempt)
	return api.LogLine{At: fsm.Time(at.UnixMilli()), Node: l.node, Phase: fsm.Phase(phase), Attempt: n, Line: rest},
		ok && err1 == nil && err2 == nil
}

// serveLogs answers another node's question for this node's lines.
func (n *Node) serveLogs(w http.ResponseWriter, r *http.Request) {
	lines, err := n.logs.read(r.PathValue("deployment"))
	if err != nil {
		http.Error(w, err.Error(), errs.Status(errs.CodeOf(err)))
		return
	}
	w.Header().Set("Content-Type", api.ContentTypeJSON)
	_ = json.NewEncoder(w).Encode(lines) // the asker is gone when this fails
}

// Logs gives the lines of all nodes that took part in a deployment, oldest first. A node that does not answer leaves a
// line that says so.
func (n *Node) Logs(ctx context.Context, deployment string) ([]api.LogLine, error) {
	d := n.fsm.State().Deployment(deployment)
	if d == nil {
		return nil, errs.New(errs.NotFound, "there is no deployment %q", deployment)
	}
	var mu sync.Mutex
	var lines []api.LogLine
	var wg sync.WaitGroup
	for _, id := range participants(d) {
		wg.Go(func() {
			part, err := n.logsOf(ctx, id, deployment)
			if err != nil {
				part = []api.LogLine{{At: fsm.Now(), Node: id, Line: "error this node's log cannot be read: " + err.Error()}}
			}
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, part...)
		})
	}
	wg.Wait()
	slices.SortStableFunc(lines, func(a, b api.LogLine) int {
		if a.At != b.At {
			return int(a.At - b.At)
		}
		return strings.Compare(a.Node, b.Node)
	})
	return lines, nil
}

func participants(d *fsm.Deployment) []string {
	var nodes []string
	for _, s := range d.Steps {
		if s.Node != "" && !slices.Contains(nodes, s.Node) {
			nodes = append(nodes, s.Node)
		}
	}
	return nodes
}

func (n *Node) logsOf(ctx context.Context, id, deployment string) ([]api.LogLine, error) {
	if id == n.identity.NodeID {
		return n.logs.read(deployment)
	}
	var lines []api.LogLine
	return lines, n.askPeer(ctx, id, "/logs/"+deployment, &lines)
}

// askPeer gets a JSON answer from another node within two seconds.
func (n *Node) askPeer(ctx context.Context, id, path string, out any) error {
	peer := n.fsm.State().Node(id)
	if peer == nil {
		return errs.New(errs.NotFound, "node %q is no member any more", id)
	}
	return n.askAt(ctx, cluster.Member{ID: id, Addr: peer.ClusterAddr}, path, out)
}

// askAt is askPeer for a node whose address is known from elsewhere. A node that turns this one away says why: the error
// is then of that code.
func (n *Node) askAt(ctx context.Context, peer cluster.Member, path string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return n.fetch(ctx, peer, path, out)
}

// fetch is askAt for an answer that may take as long as ctx.
func (n *Node) fetch(ctx context.Context, peer cluster.Member, path string, out any) error {
	id := peer.ID
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, cluster.PeerURL(id, peer.Addr, path), nil)
	if err != nil {
		return err
	}
	resp, err := n.port.Client().Do(req)
	if err != nil {
		return errs.New(errs.Unavailable, "node %q does not answer: %w", id, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000)) // what there is of it
		var refusal api.ErrorBody
		if json.Unmarshal(text, &refusal) == nil && refusal.Error.Code != "" {
			return &refusal.Error.Error
		}
		return errs.New(errs.Unavailable, "node %q answers %s: %s", id, resp.Status, strings.TrimSpace(string(text)))
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<20)).Decode(out); err != nil {
		return fmt.Errorf("read node %s's answer: %w", id, err)
	}
	return nil
}
