package cmd

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"kontiki/api"
	"kontiki/client"
	"kontiki/fsm"
)

// startCluster makes a cluster on the first node and lets the other two join.
func (s *show) startCluster(ctx context.Context) error {
	for i := range s.editions {
		e, err := newEdition(s.dir, []string{"first", "second"}[i])
		if err != nil {
			return err
		}
		s.editions[i] = e
	}
	for i := range 3 {
		p, err := newProcess(s.dir, fmt.Sprintf("n%d", i+1), s.engine)
		if err != nil {
			return err
		}
		s.nodes = append(s.nodes, p)
		if i == 0 {
			err = s.initFirst(ctx, p)
		} else {
			err = s.joinNext(ctx, p)
		}
		if err != nil {
			return err
		}
		s.tell("node %s runs as process %d: API %s, ingress %s", p.name, p.cmd.Process.Pid, p.api, p.ingress)
	}
	c, err := s.client(s.nodes...)
	if err != nil {
		return err
	}
	return await(ctx, "three voting nodes", func(ctx context.Context) (bool, error) {
		status, err := c.Status(ctx)
		voters := 0
		for _, p := range status.Peers {
			if p.Role != api.RoleLearner && p.State == fsm.NodeReady {
				voters++
			}
		}
		if err == nil && voters == 3 {
			s.tell("cluster %s: three voting nodes, leader %s in term %d", status.ID, status.Leader, status.Term)
		}
		return err == nil && voters == 3, err
	})
}

func (s *show) initFirst(ctx context.Context, p *process) error {
	out, err := p.run(ctx, "", append([]string{"init", "--json", "--no-context"}, p.addressFlags()...)...)
	if err != nil {
		return err
	}
	var made initAnswer
	if err := json.Unmarshal(out, &made); err != nil {
		return fmt.Errorf("read what init printed: %w", err)
	}
	s.token, s.ca = made.Token, made.Fingerprint
	return s.startNode(ctx, p)
}

func (s *show) joinNext(ctx context.Context, p *process) error {
	c, err := s.client(s.nodes[0])
	if err != nil {
		return err
	}
	token, err := c.CreateJoinToken(ctx, 0)
	if err != nil {
		return fmt.Errorf("make join token: %w", err)
	}
	args := append([]string{"join", "--token-file", "-"}, p.addressFlags()...)
	if _, err := p.run(ctx, token.Token, append(args, "https://"+s.nodes[0].api)...); err != nil {
		return err
	}
	return s.startNode(ctx, p)
}

// startNode starts a node's process and waits until it is ready.
func (s *show) startNode(ctx context.Context, p *process) error {
	c, err := s.client(p)
	if err != nil {
		return err
	}
	if err := p.start(); err != nil {
		return err
	}
	return p.ready(ctx, c)
}

// leader gives the leading node's process, the others, and the term.
func (s *show) leader(ctx context.Context) (leader *process, followers []*process, term uint64, err error) {
	c, err := s.client(s.nodes...)
	if err != nil {
		return nil, nil, 0, err
	}
	status, err := c.Status(ctx)
	if err != nil {
		return nil, nil, 0, err
	}
	for _, p := range s.nodes {
		if p.name == status.Leader {
			leader = p
		} else {
			followers = append(followers, p)
		}
	}
	if leader == nil {
		return nil, nil, 0, errors.New("the cluster has no leader")
	}
	return leader, followers, status.Term, nil
}

// upload deploys an edition through a node.
func (s *show) upload(ctx context.Context, through *process, e edition) (fsm.Deployment, error) {
	c, err := s.client(through)
	if err != nil {
		return fsm.Deployment{}, err
	}
	archive, done, err := content{path: e.dir}.open(ctx)
	if err != nil {
		return fsm.Deployment{}, err
	}
	defer done()
	how := client.How{Create: true, Label: e.name, Replicas: fsm.ReplicasAll}
	made, err := c.Deploy(ctx, client.DeployRequest{Project: demoProject, Archive: archive, How: how})
	if err != nil {
		return made, fmt.Errorf("deploy the %s edition: %w", e.name, err)
	}
	s.tell("the %s edition (%d files) went up through follower %s: deployment %s", e.name, len(e.files), through.name, made.ID)
	return made, nil
}

// follow tells the deployment's timeline until its end, which has to be active; seen is told each event first.
func (s *show) follow(ctx context.Context, c *client.Client, id string, seen func(api.Event)) error {
	err := c.Follow(ctx, id, 0, func(e api.Event) error {
		seen(e)
		if line := e.Event; e.Type == api.EventLine && line != nil {
			s.tell("  %3d %%  %-17s %-3s %s (term %d)", line.Progress, line.Phase, line.Node, line.Message, line.Term)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("follow deployment %s: %w", id, err)
	}
	d, err := c.Deployment(ctx, id)
	if err != nil {
		return err
	}
	if d.Status != fsm.StatusActive {
		return fmt.Errorf("deployment %s ended as %s: %w", id, d.Status, deploymentError(d))
	}
	return nil
}

// deployFirst brings the first edition into service and starts asking for it.
func (s *show) deployFirst(ctx context.Context) error {
	_, followers, _, err := s.leader(ctx)
	if err != nil {
		return err
	}
	made, err := s.upload(ctx, followers[0], s.editions[0])
	if err != nil {
		return err
	}
	c, err := s.client(followers[0])
	if err != nil {
		return err
	}
	if err := s.follow(ctx, c, made.ID, func(api.Event) {}); err != nil {
		return err
	}
	plan, err := c.Plan(ctx, demoProject, client.How{})
	if err != nil {
		return err
	}
	s.host = plan.Host
	s.probe = newProbe(s.host, s.nodes, s.editions)
	for _, n := range s.nodes {
		if err := s.serves(ctx, n, s.editions[0]); err != nil {
			return err
		}
	}
	s.probe.start()
	s.tell("it serves on all nodes; from now on about %d requests/s ask them for its pages", int(probeWorkers/probePause.Seconds()))
	return nil
}

// serves waits until a node gives an edition's first page from its own copy.
func (s *show) serves(ctx context.Context, n *process, e edition) error {
	return await(ctx, fmt.Sprintf("node %s to serve the %s edition", n.name, e.name), func(context.Context) (bool, error) {
		a, err := s.probe.ask(n.ingress, "/")
		return err == nil && a.by == n.name && bytes.Equal(a.body, e.pages["/"]), err
	})
}

// redeploy deploys the second edition, kills the leader in the middle of it and follows it to its end.
func (s *show) redeploy(ctx context.Context) error {
	_, followers, _, err := s.leader(ctx)
	if err != nil {
		return err
	}
	// Asked for a moment, so that the table shows what a quiet cluster serves.
	if err := await(ctx, "some answers", func(context.Context) (bool, error) { return s.probe.made.Load() >= 300, nil }); err != nil {
		return err
	}
	made, err := s.upload(ctx, followers[0], s.editions[1])
	if err != nil {
		return err
	}
	s.result.deployment = made.ID
	c, err := s.client(s.nodes...)
	if err != nil {
		return err
	}
	var failover error
	err = s.follow(ctx, c, made.ID, func(e api.Event) {
		if s.result.leader == nil && inTheMiddle(e) {
			failover = s.killLeader(ctx, e.Phase)
		}
	})
	if err = cmp.Or(failover, err); err == nil && s.result.leader == nil {
		err = errors.New("the deployment was over before the leader could be killed")
	}
	return err
}

// inTheMiddle reports whether a deployment is at work in a phase that takes a while.
func inTheMiddle(e api.Event) bool {
	return e.Status == fsm.StatusRunning && (e.Phase == fsm.PhaseBuilding || e.Phase == fsm.PhaseCopyingFiles)
}

// killLeader ends the leader and measures how long the others take to acknowledge a write again.
func (s *show) killLeader(ctx context.Context, phase fsm.Phase) error {
	leader, others, term, err := s.leader(ctx)
	if err != nil {
		return err
	}
	survivors, err := s.client(others...)
	if err != nil {
		return err
	}
	at := time.Now()
	if err := leader.kill(); err != nil {
		return err
	}
	s.result.leader, s.result.term = leader, term
	s.result.killedIn = phase
	s.tell("SIGKILL for the leader %s in phase %s", leader.name, phase)
	_, err = survivors.UpdateProject(ctx, demoProject, api.ProjectUpdate{Metadata: map[string]string{"demo": "failover"}})
	if err != nil {
		return fmt.Errorf("write after the leader's death: %w", err)
	}
	s.result.failover = time.Since(at)
	status, err := survivors.Status(ctx)
	if err != nil {
		return err
	}
	s.tell("%s leads in term %d; a write was acknowledged %.2f s after the kill", status.Leader, status.Term, s.result.failover.Seconds())
	return nil
}

// bringBack restarts the killed node and shows it catch up.
func (s *show) bringBack(ctx context.Context) error {
	s.tell("deployment %s is active; %s is started again", s.result.deployment, s.result.leader.name)
	at := time.Now()
	if err := s.startNode(ctx, s.result.leader); err != nil {
		return err
	}
	own, err := s.client(s.result.leader)
	if err != nil {
		return err
	}
	status, err := own.Status(ctx)
	if err != nil {
		return err
	}
	s.tell("%s is back and has applied the log up to index %d of %d", s.result.leader.name, status.Applied, status.Commit)
	if err := s.serves(ctx, s.result.leader, s.editions[1]); err != nil {
		return err
	}
	s.result.catchUp = time.Since(at)
	s.tell("%s serves the second edition from its own disk, %.2f s after its start", s.result.leader.name, s.result.catchUp.Seconds())
	return nil
}
