package cmd

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"

	"kontiki/errs"
	"kontiki/node"
)

type serverCmd struct {
	app  *app
	node *nodeConfig
	dev  bool
}

func newServer(a *app) *cobra.Command {
	s := &serverCmd{app: a}
	c := &cobra.Command{
		Use: "server", Short: "Run this machine's node", Args: cobra.NoArgs,
		Long: `Runs the node that lives in a data directory made by kontiki init or kontiki join, until it is told to stop
(SIGINT or SIGTERM: it hands on leadership and finishes what it is answering; a second one ends it at once).

With --dev it makes a throw-away cluster of one node in a temporary directory, on free ports unless some are
given, prints how to talk to it, and removes everything when it ends.`,
		Example: "  kontiki server --data /var/lib/kontiki\n  kontiki server --config /etc/kontiki.yaml\n  kontiki server --dev",
		RunE:    func(c *cobra.Command, _ []string) error { return s.run(c.Context()) },
	}
	s.node = addNodeFlags(a, c)
	c.Flags().BoolVar(&s.dev, "dev", false, "a throw-away cluster of one node")
	return c
}

// gcPercent lets the heap grow to three times what lives in it. A node's heap is small, a few tens of megabytes for
// thousands of deployments, and collecting it at every doubling was a tenth of a busy node's time.
const gcPercent = 200

func (s *serverCmd) run(ctx context.Context) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if s.dev {
		return s.runDev(ctx)
	}
	if err := s.node.load("data"); err != nil {
		return err
	}
	cfg, err := s.node.config()
	if err != nil {
		return err
	}
	id, err := node.LoadIdentity(cfg.DataDir)
	if errs.CodeOf(err) == errs.NotFound {
		return &exitError{code: ExitUsage, err: err}
	}
	if err != nil {
		return err
	}
	if name := s.node.values["node"]; name.text != "" && name.text != id.NodeID {
		return usage("leave the name out, or give the data directory of that node", "%s: the data directory is that of node %s, not of %s", name.origin, id.NodeID, name.text)
	}
	n, err := node.Open(ctx, cfg)
	if err != nil {
		return configError(err)
	}
	return s.serve(ctx, n, serverAnswer{Cluster: id.ClusterID, Node: id.NodeID})
}

// serverAnswer is what server prints once it listens.
type serverAnswer struct {
	Cluster string `json:"cluster"`
	Node    string `json:"node"`
	API     string `json:"api"`
	Ingress string `json:"ingress"`
	Nodes   string `json:"nodes"` // where the other nodes reach it
	Token   string `json:"token,omitempty"`
}

func (s *serverCmd) serve(ctx context.Context, n *node.Node, out serverAnswer) error {
	out.Nodes, out.API, out.Ingress = n.Addrs()
	if out.Token == "" {
		if err := s.print(out); err != nil {
			return err
		}
		return n.Run(ctx)
	}
	return s.serveDev(ctx, n, out)
}

// serveDev announces the node only when it can be used: somebody waits for it.
func (s *serverCmd) serveDev(ctx context.Context, n *node.Node, out serverAnswer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	announced := make(chan error, 1)
	go func() {
		err := await(ctx, "the node to be ready", func(context.Context) (bool, error) {
			err := n.Ready()
			return err == nil, err
		})
		if err == nil {
			err = s.print(out)
		}
		if err != nil {
			cancel()
		}
		announced <- err
	}()
	err := n.Run(ctx)
	cancel()
	return cmp.Or(err, <-announced)
}

func (s *serverCmd) print(out serverAnswer) error {
	if s.app.json {
		return s.app.printJSON(out)
	}
	s.app.say("node %s of cluster %s listens: API %s, ingress %s, other nodes %s", out.Node, out.Cluster, out.API, out.Ingress, out.Nodes)
	if out.Token == "" {
		return nil
	}
	url := "http://" + out.API
	s.app.say(`
This is a throw-away cluster; everything in it is removed when it ends (Ctrl-C).

  export KONTIKI_SERVER=%s
  export KONTIKI_TOKEN=%s

  next: kontiki deploy ./site --project hello`, url, out.Token)
	return nil
}

// runDev makes a cluster in a temporary directory and removes it at the end.
func (s *serverCmd) runDev(ctx context.Context) (err error) {
	if err := s.node.load(); err != nil {
		return err
	}
	s.node.prefer("engine", node.EngineEmbedded)
	s.node.prefer("log_level", "warn")
	cfg, err := s.node.config()
	if err != nil {
		return err
	}
	if cfg.DataDir != "" {
		return usage("leave --data out, or leave --dev out", "a --dev node has its own temporary data directory")
	}
	dir, err := os.MkdirTemp("", "kontiki-dev-")
	if err != nil {
		return fmt.Errorf("make temporary directory: %w", err)
	}
	defer func() {
		if removeErr := os.RemoveAll(dir); err == nil && removeErr != nil {
			err = fmt.Errorf("remove temporary directory: %w", removeErr)
		}
	}()
	if cfg, err = devConfig(cfg, filepath.Join(dir, "data")); err != nil {
		return err
	}
	name := first(s.node.text("node"), "dev")
	made, err := node.Init(ctx, node.InitOptions{Config: cfg, NodeID: name})
	if err != nil {
		return configError(err)
	}
	n, err := node.Open(ctx, cfg)
	if err != nil {
		return configError(err)
	}
	return s.serve(ctx, n, serverAnswer{Cluster: made.ClusterID, Node: made.NodeID, Token: made.Token})
}

// devConfig fills in a temporary directory and free ports on loopback.
func devConfig(cfg node.Config, data string) (node.Config, error) {
	ports, err := freePorts(3)
	if err != nil {
		return cfg, err
	}
	cfg.DataDir = data
	cfg.ClusterAddr = first(cfg.ClusterAddr, ports[0])
	cfg.APIAddr = first(cfg.APIAddr, ports[1])
	cfg.IngressAddr = first(cfg.IngressAddr, ports[2])
	return cfg, nil
}
