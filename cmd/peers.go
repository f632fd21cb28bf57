package cmd

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"kontiki/api"
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
		Long: `Takes a node out of the cluster for good: what it served is placed elsewhere, and its ID is never
accepted again. A machine that is to come back joins under a new ID. A removal that would leave
the cluster without a majority is refused.`,
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
	if p.app.json {
		return p.app.printJSON(map[string]string{"removed": id})
	}
	p.app.say("removed node %s\n  next: kontiki peers", id)
	return nil
}
