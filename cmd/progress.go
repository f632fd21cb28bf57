package cmd

import (
	"fmt"
	"io"
	"strings"

	"kontiki/api"
)

// bar is one line that is drawn over and over on a terminal; without one it draws nothing.
type bar struct {
	out   io.Writer // nil for none
	drawn bool
}

func (a *app) newBar() *bar {
	if !a.Terminal || a.json {
		return &bar{}
	}
	return &bar{out: a.Err}
}

const barWidth = 24

// draw shows per cent done, and what is being done.
func (b *bar) draw(percent int, what string) {
	if b.out == nil {
		return
	}
	full := min(max(percent, 0), 100) * barWidth / 100
	fmt.Fprintf(b.out, "\r\x1b[K[%s%s] %3d %%  %s", strings.Repeat("#", full), strings.Repeat("-", barWidth-full), percent, what)
	b.drawn = true
}

// clear makes room for a line that stays.
func (b *bar) clear() {
	if b.drawn {
		fmt.Fprint(b.out, "\r\x1b[K")
		b.drawn = false
	}
}

// watcher shows a deployment's events: lines that stay, and on a terminal a bar below them.
type watcher struct {
	app *app
	bar *bar
}

func (w *watcher) event(e api.Event) error {
	if w.app.json {
		return w.app.printJSON(e)
	}
	if e.Type == api.EventLine && e.Event != nil {
		w.bar.clear()
		line := e.Event
		fmt.Fprintf(w.app.Err, "%s %3d %%  %-17s %-8s %s\n", clock(line.At), line.Progress, line.Phase, line.Node, line.Message)
	}
	if e.Type != api.EventEnd {
		w.bar.draw(e.PhaseProgress, describePhase(e))
	}
	return nil
}

func describePhase(e api.Event) string {
	what := string(e.Phase)
	if e.Attempt > 1 {
		what += fmt.Sprintf(", attempt %d", e.Attempt)
	}
	return what
}
