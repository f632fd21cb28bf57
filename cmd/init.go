package cmd

import (
	"context"
	"net"
	"os"

	"github.com/spf13/cobra"

	"kontiki/errs"
	"kontiki/node"
)

type initCmd struct {
	app        *app
	node       *nodeConfig
	baseDomain string
	noContext  bool
}

func newInit(a *app) *cobra.Command {
	i := &initCmd{app: a}
	c := &cobra.Command{
		Use: "init", Short: "Make a new cluster with this machine as its first node", Args: cobra.NoArgs,
		Long: `Makes a new cluster on an empty data directory: its certificate authority, its first node and the first
admin token, which is shown this once. The addresses given here are kept; kontiki server starts the node.

The address, token and fingerprint are stored in the context file, unless there is one already.`,
		Example: "  kontiki init --data /var/lib/kontiki --node n1 --advertise 10.0.0.1",
		RunE:    func(c *cobra.Command, _ []string) error { return i.run(c.Context()) },
	}
	i.node = addNodeFlags(a, c)
	c.Flags().StringVar(&i.baseDomain, "base-domain", "", "projects are served as <project>.<base domain> (default kontiki.localhost)")
	c.Flags().BoolVar(&i.noContext, "no-context", false, "leave the context file alone")
	return c
}

// initAnswer is what init prints as JSON.
type initAnswer struct {
	Cluster     string `json:"cluster"`
	Node        string `json:"node"`
	Server      string `json:"server"`
	Token       string `json:"token"`
	Fingerprint string `json:"fingerprint"`
	Context     string `json:"context,omitempty"` // the context file that was written
}

func (i *initCmd) run(ctx context.Context) error {
	if err := i.node.load("data", "node"); err != nil {
		return err
	}
	if err := i.node.refuseFreePorts(); err != nil {
		return err
	}
	i.node.prefer("log_level", "warn") // how a log begins is nobody's news here
	cfg, err := i.node.config()
	if err != nil {
		return err
	}
	made, err := node.Init(ctx, node.InitOptions{Config: cfg, NodeID: i.node.text("node"), BaseDomain: i.baseDomain})
	if err != nil {
		return configError(err)
	}
	id, err := node.LoadIdentity(cfg.DataDir)
	if err != nil {
		return err
	}
	out := initAnswer{Cluster: made.ClusterID, Node: made.NodeID, Server: "https://" + reachable(id.APIAddr, id.Advertise), Token: made.Token, Fingerprint: made.Fingerprint}
	if !i.noContext {
		if out.Context, err = i.storeContext(out); err != nil {
			return err
		}
	}
	if i.app.json {
		return i.app.printJSON(out)
	}
	return i.print(out, cfg.DataDir)
}

// reachable gives the address under which a listen address is reached from elsewhere.
func reachable(listen, advertise string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil || host != "" && !net.ParseIP(host).IsUnspecified() {
		return listen
	}
	return net.JoinHostPort(advertise, port)
}

// storeContext writes the context file when there is none; it gives its path, or "" when there is one already.
func (i *initCmd) storeContext(made initAnswer) (string, error) {
	file, err := i.app.contextPath()
	if err != nil {
		return "", nil // without a home folder there is no context
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		return "", nil
	}
	return i.app.saveContext(access{servers: []string{made.Server}, token: made.Token, ca: made.Fingerprint})
}

func (i *initCmd) print(out initAnswer, data string) error {
	i.app.say("made cluster %s with node %s\n", out.Cluster, out.Node)
	rows := [][]string{{"server", out.Server}, {"admin token", out.Token + "   (shown this once)"}, {"CA fingerprint", out.Fingerprint}}
	if out.Context != "" {
		rows = append(rows, []string{"stored in", out.Context})
	}
	if err := i.app.table(nil, rows); err != nil {
		return err
	}
	if out.Context == "" {
		i.app.say("\nto talk to it: kontiki context set --server %s --ca %s --token …", out.Server, out.Fingerprint)
	}
	i.app.say("\n  next: kontiki server --data %s", data)
	return nil
}

// configError gives errors about what the user configured exit code 2.
func configError(err error) error {
	switch errs.CodeOf(err) {
	case errs.Invalid, errs.Exists:
		return &exitError{code: ExitUsage, err: err}
	}
	return err
}
