package cmd

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"kontiki/api"
	"kontiki/fsm"
)

// demoResult is what the demo found.
type demoResult struct {
	leader     *process // the node that was killed
	term       uint64   // in which it led
	killedIn   fsm.Phase
	deployment string
	failover   time.Duration // from the kill to the next acknowledged write
	catchUp    time.Duration // from the dead node's start until it served the new release
	end        fsm.Deployment
	hashes     api.Hashes
	rate       float64  // requests per second
	wrong      []string // files that a node does not serve as the second edition has them
}

// verify stops asking and looks at the end: the states' hashes, and every file on every node.
func (s *show) verify(ctx context.Context) error {
	asked := s.probe.duration()
	s.probe.stop()
	s.result.rate = float64(s.probe.made.Load()) / asked.Seconds()
	c, err := s.client(s.nodes...)
	if err != nil {
		return err
	}
	err = await(ctx, "equal hashes of three nodes", func(ctx context.Context) (bool, error) {
		hashes, err := c.Hashes(ctx)
		if err != nil {
			return false, err
		}
		s.result.hashes = hashes
		return len(hashes.Hashes) == 3, fmt.Errorf("%d nodes answered: %v", len(hashes.Hashes), hashes.Errors)
	})
	if err != nil {
		return err
	}
	for _, n := range s.nodes {
		for path, body := range s.editions[1].files {
			a, err := s.probe.ask(n.ingress, path)
			if err != nil || !bytes.Equal(a.body, body) || a.by != n.name || a.release != s.result.deployment {
				s.result.wrong = append(s.result.wrong, n.name+" "+path)
			}
		}
	}
	s.result.end, err = c.Deployment(ctx, s.result.deployment)
	return err
}

// judge prints the table and says whether the demo did what it promises.
func (s *show) judge() error {
	failures := s.probe.failed()
	if err := s.print(failures); err != nil {
		return err
	}
	var problems []string
	if n := len(failures); n > 0 {
		problems = append(problems, fmt.Sprintf("%d requests failed, the first: %s", n, failures[0]))
	}
	if !s.result.hashes.Equal {
		problems = append(problems, fmt.Sprintf("the nodes' states differ at index %d", s.result.hashes.Index))
	}
	if n := len(s.result.wrong); n > 0 {
		problems = append(problems, fmt.Sprintf("%d files are not served as the second edition has them, the first: %s", n, s.result.wrong[0]))
	}
	if term := s.result.lastTerm(); term <= s.result.term {
		problems = append(problems, fmt.Sprintf("the deployment was over in term %d: the leader's death came too late", term))
	}
	if len(problems) > 0 {
		return fmt.Errorf("the demo did not do what it promises: %s", strings.Join(problems, "; "))
	}
	return nil
}

// lastTerm is the newest term in the deployment's timeline.
func (r *demoResult) lastTerm() uint64 {
	var term uint64
	for _, e := range r.end.Events {
		term = max(term, e.Term)
	}
	return term
}

func (s *show) print(failures []string) error {
	r := &s.result
	if s.app.json {
		return s.app.printJSON(map[string]any{"deployment": r.end, "killed": r.leader.name, "killed_in": r.killedIn, "failover_seconds": r.failover.Seconds(),
			"catch_up_seconds": r.catchUp.Seconds(), "requests": s.probe.made.Load(), "retried": s.probe.retried.Load(), "failed": failures,
			"hashes": r.hashes, "wrong_files": r.wrong, "seconds": time.Since(s.started).Seconds()})
	}
	fmt.Fprintln(s.app.Out)
	if err := s.app.table(stepsHead, stepRows(r.end.Steps)); err != nil {
		return err
	}
	fmt.Fprintln(s.app.Out)
	equal := "equal on all three nodes"
	if !r.hashes.Equal {
		equal = "DIFFERENT"
	}
	return s.app.table(nil, [][]string{
		{"killed", fmt.Sprintf("%s, leader of term %d, in phase %s", r.leader.name, r.term, r.killedIn)},
		{"failover", fmt.Sprintf("%.2f s from the kill to the next acknowledged write", r.failover.Seconds())},
		{"catch-up", fmt.Sprintf("%.2f s from the restart until the dead node served the new release", r.catchUp.Seconds())},
		{"requests", fmt.Sprintf("%d made (%.0f/s), %d tried again on the next node, %d failed", s.probe.made.Load(), r.rate, s.probe.retried.Load(), len(failures))},
		{"answers", fmt.Sprintf("%d of the first edition, %d of the second", s.probe.seen[0].Load(), s.probe.seen[1].Load())},
		{"state hashes", fmt.Sprintf("%s at index %d", equal, r.hashes.Index)},
		{"new release", fmt.Sprintf("%d of %d files right on three nodes", 3*len(s.editions[1].files)-len(r.wrong), 3*len(s.editions[1].files))},
		{"took", fmt.Sprintf("%.1f s", time.Since(s.started).Seconds())},
	})
}

// printAccess says how to use the cluster that is left running.
func (s *show) printAccess() error {
	var servers, pids []string
	for _, p := range s.nodes {
		servers = append(servers, "https://"+p.api)
		pids = append(pids, fmt.Sprint(p.cmd.Process.Pid))
	}
	if s.app.json {
		return s.app.printJSON(map[string]any{"servers": servers, "token": s.token, "ca": s.ca, "host": s.host, "pids": pids, "dir": s.dir})
	}
	_, err := fmt.Fprintf(s.app.Out, `
The cluster is left running:

  export KONTIKI_SERVER=%s
  export KONTIKI_TOKEN=%s
  export KONTIKI_CA=%s

  curl -H 'Host: %s' http://%s/
  kontiki status

To end it: kill %s; rm -r %s
`, strings.Join(servers, ","), s.token, s.ca, s.host, s.nodes[0].ingress, strings.Join(pids, " "), s.dir)
	return err
}
