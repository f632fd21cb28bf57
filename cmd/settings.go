package cmd

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"kontiki/errs"
	"kontiki/fsm"
)

func newSettings(a *app) *cobra.Command {
	get := func(c *cobra.Command, _ []string) error { return runSettingsGet(c.Context(), a) }
	set := &cobra.Command{
		Use: "set <name>=<value>…", Short: "Change settings", Args: cobra.MinimumNArgs(1),
		Example: "  kontiki settings set base_domain=apps.example.org keep=10\n  kontiki settings set deadlines.building=45m",
		RunE:    func(c *cobra.Command, args []string) error { return runSettingsSet(c.Context(), a, args) },
	}
	return group("settings", "Show and change the cluster's settings", get,
		&cobra.Command{Use: "get", Short: "Show the settings", Args: cobra.NoArgs, RunE: get}, set)
}

func runSettingsGet(ctx context.Context, a *app) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	s, err := c.Settings(ctx)
	if err != nil {
		return err
	}
	return a.printSettings(s)
}

func (a *app) printSettings(s fsm.Settings) error {
	if a.json {
		return a.printJSON(s)
	}
	flat, err := flatSettings(s)
	if err != nil {
		return err
	}
	rows := make([][]string, 0, len(flat))
	for name, text := range flat {
		rows = append(rows, []string{name, text})
	}
	slices.SortFunc(rows, func(x, y []string) int { return strings.Compare(x[0], y[0]) })
	return a.table([]string{"setting", "value"}, rows)
}

// flatSettings gives the settings by their JSON names, deadlines as deadlines.<phase>.
func flatSettings(s fsm.Settings) (map[string]string, error) {
	encoded, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode settings: %w", err)
	}
	var named map[string]any
	if err := json.Unmarshal(encoded, &named); err != nil {
		return nil, fmt.Errorf("decode settings: %w", err)
	}
	flat := map[string]string{}
	for name, v := range named {
		if deeper, ok := v.(map[string]any); ok {
			for key, v := range deeper {
				flat[name+"."+key] = fmt.Sprint(v)
			}
			continue
		}
		flat[name] = fmt.Sprint(v)
	}
	return flat, nil
}

func runSettingsSet(ctx context.Context, a *app, args []string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	old, err := c.Settings(ctx)
	if err != nil {
		return err
	}
	changes, err := settingChanges(old, args)
	if err != nil {
		return err
	}
	s, err := c.UpdateSettings(ctx, changes)
	if err != nil {
		return err
	}
	return a.printSettings(s)
}

// settingChanges makes of name=value arguments what the API's PATCH takes. Deadlines are replaced as a whole there, so
// those that are not named come from the old settings.
func settingChanges(old fsm.Settings, args []string) (map[string]any, error) {
	flat, err := flatSettings(old)
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range flat {
		names = append(names, name)
	}
	slices.Sort(names)
	changes := map[string]any{}
	for _, arg := range args {
		name, text, ok := strings.Cut(arg, "=")
		if _, known := flat[name]; !ok || !known {
			hint := "see: kontiki settings"
			if near := errs.Nearest(name, names); near != "" && near != name {
				hint = "did you mean " + near + "?"
			}
			return nil, usage(hint, "%q is not <setting>=<value>", arg)
		}
		phase, deadline := strings.CutPrefix(name, "deadlines.")
		if !deadline {
			changes[name] = settingValue(text)
			continue
		}
		all, ok := changes["deadlines"].(map[string]any)
		if !ok {
			all = map[string]any{}
			for p, m := range old.Deadlines {
				all[string(p)] = m
			}
			changes["deadlines"] = all
		}
		all[phase] = text
	}
	return changes, nil
}

// settingValue gives a number as a number; everything else is text.
func settingValue(text string) any {
	var n json.Number
	if json.Unmarshal([]byte(text), &n) == nil && text != "" && text[0] != '"' {
		return n
	}
	return text
}
