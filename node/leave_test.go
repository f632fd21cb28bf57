package node

import (
	"context"
	"fmt"
	"testing"

	"kontiki/client"
	"kontiki/errs"
	"kontiki/fsm"
)

// The only node that serves a project is removed while it is asked for all the time, through another node: what it serves
// is placed elsewhere before it goes, and no request fails.
func TestRemovingTheOnlyNodeThatServesDropsNoRequest(t *testing.T) {
	cfg, made := initNode(t, "n1")
	n1 := start(t, cfg)
	c := dial(t, made.Token, n1)
	nodes := map[string]*started{"n1": n1, "n2": join(t, c, n1, "n2"), "n3": join(t, c, n1, "n3")}
	await(t, "three voters in contact", func() error {
		for id := range nodes {
			if n := n1.fsm.State().Node(id); n == nil || n.State != fsm.NodeReady || n1.voters() != 3 {
				return fmt.Errorf("%d voters, %s is %+v", n1.voters(), id, n)
			}
		}
		return nil
	})
	d, err := c.Deploy(t.Context(), client.DeployRequest{Project: "hello", Archive: site(t, "first"), How: client.How{Create: true, Replicas: 1}})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the deployment to be active", func() error {
		if d = *n1.fsm.State().Deployment(d.ID); d.Status != fsm.StatusActive {
			return fmt.Errorf("%s in %s", d.Status, d.Phase)
		}
		return nil
	})
	only := d.Instances[0].Node
	var asked *started
	for id, n := range nodes {
		if id != only {
			asked = n
		}
	}
	await(t, "the switch to be applied there", func() error { _, err := browse(asked, "hello.kontiki.localhost", "/about.html"); return err })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- askUntil(ctx, asked) }()

	if err := dial(t, made.Token, asked).RemovePeer(t.Context(), only); err != nil {
		t.Fatal(err)
	}
	await(t, "the node to be gone", func() error {
		if n := asked.fsm.State().Node(only); n != nil {
			return fmt.Errorf("it is %s", n.State)
		}
		return nil
	})
	if err := nodes[only].stop(); err != nil && errs.CodeOf(err) != errs.RemovedPeer {
		t.Error(err)
	}
	for range 100 {
		if _, err := browse(asked, "hello.kontiki.localhost", "/"); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// askUntil asks for a page all the time until ctx ends, or one request fails.
func askUntil(ctx context.Context, n *started) error {
	for made := 0; ctx.Err() == nil; made++ {
		body, err := browse(n, "hello.kontiki.localhost", "/about.html")
		if err != nil || body != "about.html first" {
			return fmt.Errorf("request %d is answered %q, %w", made, body, err)
		}
	}
	return nil
}
