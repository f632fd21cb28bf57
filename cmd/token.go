package cmd

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"kontiki/api"
	"kontiki/client"
	"kontiki/fsm"
)

func newToken(a *app) *cobra.Command {
	return group("token", "Make and revoke join tokens and API tokens", nil,
		newTokenJoin(a), newTokenCreate(a), newTokenList(a), newTokenRevoke(a))
}

type tokenJoinCmd struct {
	app *app
	ttl time.Duration
}

func newTokenJoin(a *app) *cobra.Command {
	t := &tokenJoinCmd{app: a}
	c := &cobra.Command{
		Use: "join", Short: "Make a token that admits one node", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return t.run(c.Context()) },
	}
	c.Flags().DurationVar(&t.ttl, "ttl", time.Hour, "how long it is good for, 1m to 168h")
	return c
}

func (t *tokenJoinCmd) run(ctx context.Context) error {
	c, err := t.app.client()
	if err != nil {
		return err
	}
	made, err := c.CreateJoinToken(ctx, fsm.Millis(t.ttl.Milliseconds()))
	if err != nil {
		return err
	}
	if t.app.json {
		return t.app.printJSON(made)
	}
	t.app.say("good for one node until %s; on the new machine:\n  kontiki join --node <name> --token-file <file with this token> <URL of any node>", made.ExpiresAt.Std().Local().Format(time.DateTime))
	_, err = fmt.Fprintln(t.app.Out, made.Token)
	return err
}

func newTokenCreate(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "create <name>", Short: "Make an API token; it is shown this once", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runTokenCreate(c.Context(), a, args[0]) },
	}
}

func runTokenCreate(ctx context.Context, a *app, name string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	made, err := c.CreateToken(ctx, api.TokenCreate{Name: name})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(made)
	}
	a.say("made token %s (%s, role %s); this is the only time it is shown:", made.Token.ID, made.Token.Name, made.Token.Role)
	_, err = fmt.Fprintln(a.Out, made.Secret)
	return err
}

func newTokenList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the API tokens, without their secrets", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runTokenList(c.Context(), a) },
	}
}

func runTokenList(ctx context.Context, a *app) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	var all []fsm.Token
	for t, err := range client.All(func(l client.List) (api.Page[fsm.Token], error) { return c.Tokens(ctx, l) }) {
		if err != nil {
			return err
		}
		all = append(all, t)
	}
	return printList(a, all, []string{"token", "name", "role", "created", "revoked"}, func(t fsm.Token) []string {
		return []string{t.ID, t.Name, t.Role, age(t.CreatedAt), age(t.RevokedAt)}
	})
}

type tokenRevokeCmd struct {
	app *app
	yes bool
}

func newTokenRevoke(a *app) *cobra.Command {
	t := &tokenRevokeCmd{app: a}
	c := &cobra.Command{
		Use: "revoke <token>", Short: "End an API token for good", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return t.run(c.Context(), args[0]) },
	}
	c.Flags().BoolVar(&t.yes, "yes", false, "do not ask")
	return c
}

func (t *tokenRevokeCmd) run(ctx context.Context, id string) error {
	if err := t.app.confirm(t.yes, "Revoke token "+id+" for good?"); err != nil {
		return err
	}
	c, err := t.app.client()
	if err != nil {
		return err
	}
	if err := c.RevokeToken(ctx, id); err != nil {
		return err
	}
	if t.app.json {
		return t.app.printJSON(map[string]string{"revoked": id})
	}
	t.app.say("revoked token %s", id)
	return nil
}
