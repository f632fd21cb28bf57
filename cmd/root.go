package cmd

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Env is what a command line lives in; tests give their own.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	Terminal bool          // somebody sits there: questions and moving bars make sense
	Patience time.Duration // for how long a node is tried to be reached; 0 means 5 s
}

// app is one run of the command line: its surroundings and the flags that every command has.
type app struct {
	Env
	json    bool
	started bool // the arguments were fine and a command runs
	access  access
}

// Main runs the command line of the process and gives its exit code. SIGINT and SIGTERM end the command's context; a
// second one ends the process at once.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	terminal := term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stderr.Fd()))
	return Execute(ctx, os.Args[1:], Env{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Terminal: terminal})
}

// Execute runs one command line, without the program's name, and gives its exit code.
func Execute(ctx context.Context, args []string, env Env) int {
	a := &app{Env: env}
	root := newRoot(a)
	root.SetArgs(args)
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	if !a.started {
		err = usageError(err, root, args)
	} else if ctx.Err() != nil {
		err = &exitError{code: ExitInterrupted, err: err}
	}
	a.showError(err)
	return exitCode(err)
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "kontiki",
		Short: "A self-hosted deployment cluster",
		Long: `Kontiki turns a few Linux machines into one cluster that deploys sites and keeps them running.

Nodes form a Raft group. Hand any of them a folder: the cluster builds it, runs it on its
nodes, routes traffic to it and keeps it that way, through the loss of any node at any moment.

  kontiki server --dev                       one throw-away node, nothing to set up
  kontiki deploy ./site --project hello      bring a site into service
  kontiki demo                               watch three nodes survive their leader`,
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRun:  func(*cobra.Command, []string) { a.started = true },
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print one JSON document (streams: one per line)")
	a.access.addFlags(root.PersistentFlags())
	root.AddGroup(&cobra.Group{ID: "use", Title: "Deploying:"}, &cobra.Group{ID: "operate", Title: "Operating the cluster:"},
		&cobra.Group{ID: "node", Title: "Running nodes:"})
	addTo(root, "use", newDeploy(a), newProjects(a), newDeployments(a), newStatus(a), newLogs(a), newCancel(a))
	addTo(root, "operate", newPeers(a), newToken(a), newSettings(a), newRepairs(a), newHashes(a), newContext(a))
	addTo(root, "node", newInit(a), newJoin(a), newServer(a), newServe(a), newDemo(a))
	root.AddCommand(newVersion(a), newCompletion(), newExitCodes())
	root.SetHelpCommandGroupID("")
	return root
}

func addTo(root *cobra.Command, group string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = group
		root.AddCommand(c)
	}
}

// group makes a command that has subcommands and does one of them, or shows its help, when none is named.
func group(use, short string, run func(*cobra.Command, []string) error, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: run}
	if run == nil {
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	}
	c.AddCommand(subs...)
	return c
}
