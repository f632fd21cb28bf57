package cmd

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"kontiki/api"
	"kontiki/client"
)

func newPeers(a *app) *cobra.Command {
	list := func(c *cobra.Command, _ []string) error { return runPeers(c.Context(), a) }
	return group("peers", "List and remove the cluster's nodes", list,
		&cobra.Command{Use: "list", Short: "List the nodes", Args: cobra.NoArgs, RunE: list}, newPeerRemove(a))
}

func runPeers(ctx context.Context, a *app) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	peers, err := c.Peers(ctx)
	if err != nil {
		return err
	}
	return printList(a, peers.Items, peersHead, func(p api.Peer) []string { return peerRows([]api.Peer{p})[0] })
}

type peerRemoveCmd struct {
	app *app
	yes bool
}

func newPeerRemove(a *app) *cobra.Command {
	p := &peerRemoveCmd{app: a}
	c := &cobra.Command{
		Use: "remove <node>", Short: "Take a node out of the cluster for good", Args: cobra.ExactArgs(1),
		Long: `Takes a node out of the cluster for good: what it alone serves is placed elsewhere first, and its ID is
never accepted again. A machine that is to come back joins under a new ID. A removal that would
leave the cluster without a majority is refused.

The removal goes on by itself when this command is ended, or stops waiting after a minute.`,
		RunE: func(c *cobra.Command, args []string) error { return p.run(c.Context(), args[0]) },
	}
	c.Flags().BoolVar(&p.yes, "yes", false, "do not ask")
	return c
}

func (p *peerRemoveCmd) run(ctx context.Context, id string) error {
	p.app.say("- remove node %s; its ID is never accepted again", id)
	if err := p.app.confirm(p.yes, fmt.Sprintf("Remove node %s for good?", id)); err != nil {
		return err
	}
	c, err := p.app.client()
	if err != nil {
		return err
	}
	if err := c.RemovePeer(ctx, id); err != nil {
		return err
	}
	gone, err := awaitGone(ctx, c, id)
	if err != nil {
		return err
	}
	switch {
	case p.app.json && gone:
		return p.app.printJSON(map[string]string{"removed": id})
	case p.app.json:
		return p.app.printJSON(map[string]string{"leaving": id})
	case gone:
		p.app.say("removed node %s\n  next: kontiki peers", id)
	default:
		p.app.say("node %s is leaving: it goes when all it serves is placed elsewhere\n  next: kontiki peers", id)
	}
	return nil
}

// leaveWait is how long the command waits for a node that has work to hand over.
const leaveWait = time.Minute

// awaitGone waits until the node is a member no more, and reports whether it is so. Answers that fail meanwhile say
// nothing: the node that is removed may be the one that was asked, or the leader.
func awaitGone(ctx context.Context, c *client.Client, id string) (bool, error) {
	limit, cancel := context.WithTimeout(ctx, leaveWait)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		peers, err := c.Peers(limit)
		if err == nil && !slices.ContainsFunc(peers.Items, func(p api.Peer) bool { return p.ID == id }) {
			return true, nil
		}
		select {
		case <-tick.C:
		case <-limit.Done():
			return false, ctx.Err()
		}
	}
}
