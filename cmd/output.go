package cmd

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"kontiki/fsm"
)

// say tells people, on standard error, what is going on; programs that read JSON are not told.
func (a *app) say(format string, args ...any) {
	if !a.json {
		fmt.Fprintf(a.Err, format+"\n", args...)
	}
}

// printJSON writes one line of JSON to standard output.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.Out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}

// table writes aligned columns to standard output.
func (a *app) table(head []string, rows [][]string) error {
	w := tabwriter.NewWriter(a.Out, 0, 8, 2, ' ', 0)
	if head != nil {
		fmt.Fprintln(w, strings.ToUpper(strings.Join(head, "\t")))
	}
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}

// items is how lists are written as JSON.
type items[T any] struct {
	Items []T `json:"items"`
}

// printList writes a list as one JSON document or as a table.
func printList[T any](a *app, list []T, head []string, row func(T) []string) error {
	if a.json {
		if list == nil {
			list = []T{}
		}
		return a.printJSON(items[T]{list})
	}
	rows := make([][]string, len(list))
	for i, item := range list {
		rows[i] = row(item)
	}
	return a.table(head, rows)
}

// confirm asks before something that cannot be taken back. Without a terminal it wants --yes.
func (a *app) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	if !a.Terminal {
		return usage("add --yes", "%s (nobody is there to ask)", question)
	}
	fmt.Fprint(a.Err, question, " [y/N] ")
	answer, _ := bufio.NewReader(a.In).ReadString('\n') // no answer is a no
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return &exitError{code: ExitFailed, err: fmt.Errorf("stopped: nothing was changed")}
}

// age says for people how long ago something was.
func age(t fsm.Time) string {
	if t == 0 {
		return "-"
	}
	d := max(0, time.Since(t.Std()))
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	}
	return fmt.Sprintf("%dd ago", int(d.Hours()/24))
}

// size gives bytes for people.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, name := float64(n)/unit, "KiB"
	for _, next := range []string{"MiB", "GiB", "TiB"} {
		if value < unit {
			break
		}
		value, name = value/unit, next
	}
	return fmt.Sprintf("%.1f %s", value, name)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// clock gives a time of day on this machine.
func clock(t fsm.Time) string { return t.Std().Local().Format("15:04:05") }
