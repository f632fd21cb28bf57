package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"kontiki/api"
	"kontiki/errs"
)

// The exit codes.
const (
	ExitOK          = 0
	ExitFailed      = 1   // it was tried and failed
	ExitUsage       = 2   // the command line or the configuration is wrong; nothing was tried
	ExitUnreachable = 3   // no node answers, or there is no leader
	ExitDeployment  = 4   // the deployment failed or was cancelled
	ExitDenied      = 5   // the token is missing, unknown or not allowed to do this
	ExitNotFound    = 6   // the named object does not exist
	ExitInterrupted = 130 // ended by a signal
)

const exitCodesHelp = `The exit codes of every command:

    0  done
    1  tried and failed
    2  the command line or the configuration is wrong; nothing was tried
    3  no node answers, or the cluster has no leader: trying again later may help
    4  the deployment failed or was cancelled
    5  the token is missing, unknown, revoked or not allowed to do this
    6  the named object does not exist
  130  ended by a signal`

func newExitCodes() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodesHelp}
}

// exitError gives an error the exit code it leads to.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// usage makes an error for a wrong command line or configuration.
func usage(hint, format string, args ...any) error {
	return &exitError{code: ExitUsage, err: errs.New(errs.Invalid, format, args...).WithHint("%s", hint)}
}

// usageError wraps what cobra finds wrong with the arguments.
func usageError(err error, root *cobra.Command, args []string) error {
	var known *exitError
	if errors.As(err, &known) {
		return err
	}
	at := root
	if c, _, findErr := root.Find(args); findErr == nil {
		at = c
	}
	message := strings.TrimRight(strings.ReplaceAll(err.Error(), "\n\n", "\n"), "\n")
	return usage(at.CommandPath()+" --help", "%s", message)
}

func exitCode(err error) int {
	var known *exitError
	if errors.As(err, &known) {
		return known.code
	}
	if errors.Is(err, context.Canceled) {
		return ExitInterrupted
	}
	switch errs.CodeOf(err) {
	case errs.NoLeader, errs.Unavailable, errs.Timeout, errs.NotLeader:
		return ExitUnreachable
	case errs.Unauthorized, errs.Forbidden, errs.JoinToken, errs.RemovedPeer:
		return ExitDenied
	case errs.NotFound:
		return ExitNotFound
	}
	return ExitFailed
}

// nextSteps are the hints for errors that come without one.
var nextSteps = map[errs.Code]string{
	errs.Unauthorized: "give a good one with --token or KONTIKI_TOKEN, or store it: kontiki context set --token …",
	errs.NoLeader:     "look at the nodes: kontiki peers",
	errs.Unavailable:  "is the node running? start it: kontiki server --data …; or name another one with --server",
	errs.Timeout:      "look whether it was done: kontiki status",
	errs.NotFound:     "see what there is: kontiki projects; kontiki deployments",
	errs.Exists:       "see what there is: kontiki projects",
	errs.QuorumLoss:   "see who votes: kontiki peers",
}

// showError prints an error for people, or as JSON, to standard error.
func (a *app) showError(err error) {
	e := *errs.From(err)
	if errs.CodeOf(err) == errs.Internal {
		e.Message = err.Error()
	}
	next := nextSteps[e.Code]
	if e.Hint == "" || strings.Contains(e.Hint, "kontiki ") {
		e.Hint, next = first(e.Hint, next), ""
	}
	if a.json {
		line, _ := json.Marshal(api.ErrorBody{Error: api.Error{Error: e}}) // plain strings always encode
		fmt.Fprintln(a.Err, string(line))
		return
	}
	fmt.Fprintln(a.Err, "kontiki:", e.Message)
	for _, step := range []string{e.Hint, next} {
		if step != "" {
			fmt.Fprintln(a.Err, "  next:", step)
		}
	}
}
