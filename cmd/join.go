package cmd

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"kontiki/node"
)

type joinCmd struct {
	app       *app
	node      *nodeConfig
	tokenFile string
}

func newJoin(a *app) *cobra.Command {
	j := &joinCmd{app: a}
	c := &cobra.Command{
		Use: "join <URL of any node>", Short: "Make this machine a node of an existing cluster", Args: cobra.ExactArgs(1),
		Long: `Makes an empty data directory that of a new node. The join token comes from kontiki token join on the
cluster; it admits one node and carries the fingerprint by which the cluster is known. Give it in a file
(--token-file, - for standard input), as KONTIKI_JOIN_TOKEN, or with --token.`,
		Example: "  kontiki join --data /var/lib/kontiki --node n2 --advertise 10.0.0.2 --token-file token https://10.0.0.1:7400",
		RunE:    func(c *cobra.Command, args []string) error { return j.run(c.Context(), args[0]) },
	}
	j.node = addNodeFlags(a, c)
	c.Flags().StringVar(&j.tokenFile, "token-file", "", "file with the join token, - for standard input")
	return c
}

func (j *joinCmd) run(ctx context.Context, server string) error {
	if err := j.node.load("data", "node"); err != nil {
		return err
	}
	if err := j.node.refuseFreePorts(); err != nil {
		return err
	}
	cfg, err := j.node.config()
	if err != nil {
		return err
	}
	token, err := j.token()
	if err != nil {
		return err
	}
	made, err := node.Join(ctx, node.JoinOptions{Config: cfg, NodeID: j.node.text("node"), URL: server, Token: token})
	if err != nil {
		return configError(err)
	}
	if j.app.json {
		return j.app.printJSON(map[string]string{"cluster": made.ClusterID, "node": made.NodeID})
	}
	j.app.say("node %s is admitted to cluster %s\n  next: kontiki server --data %s", made.NodeID, made.ClusterID, cfg.DataDir)
	return nil
}

// token finds the join token.
func (j *joinCmd) token() (string, error) {
	if j.tokenFile != "" {
		text, err := j.read()
		if err != nil {
			return "", usage("give the file with the line that kontiki token join printed", "read join token: %w", err)
		}
		return strings.TrimSpace(text), nil
	}
	if token := first(j.app.access.token, j.app.Getenv("KONTIKI_JOIN_TOKEN")); token != "" {
		return token, nil
	}
	return "", usage("make one on the cluster: kontiki token join; give it with --token-file", "no join token is given")
}

func (j *joinCmd) read() (string, error) {
	const most = 4096
	if j.tokenFile == "-" {
		b, err := io.ReadAll(io.LimitReader(j.app.In, most))
		return string(b), err
	}
	f, err := os.Open(j.tokenFile)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err == nil && len(b) == 0 {
		err = fmt.Errorf("%s is empty", j.tokenFile)
	}
	return string(b), err
}
