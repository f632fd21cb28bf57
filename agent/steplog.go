package agent

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"kontiki/errs"
	"kontiki/fsm"
)

// tailLines is how many of a step's last log lines go into its failure.
const tailLines = 20

// stepLog writes a step's log and remembers its last lines. A log that cannot be written fails no step.
type stepLog struct {
	mu     sync.Mutex
	w      io.WriteCloser // nil when there is none
	logger *slog.Logger
	tail   []string
}

// line adds a line of a level, "info" or "error".
func (l *stepLog) line(level, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tail = append(l.tail, clip(message, 500))
	if len(l.tail) > tailLines {
		l.tail = l.tail[1:]
	}
	if l.w == nil {
		return
	}
	text := strings.ReplaceAll(message, "\n", " ")
	if _, err := fmt.Fprintf(l.w, "%s %s %s\n", time.Now().UTC().Format(time.RFC3339Nano), level, text); err != nil {
		l.logger.Warn("a step's log cannot be written", "error", err)
		_ = l.w.Close() // it has failed already
		l.w = nil
	}
}

func (l *stepLog) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.tail...)
}

// Close ends the log.
func (l *stepLog) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.w == nil {
		return
	}
	if err := l.w.Close(); err != nil {
		l.logger.Warn("a step's log cannot be closed", "error", err)
	}
	l.w = nil
}

// failure makes what is reported of an error: its code and hint, the chain of causes, the stack and the last log lines.
func (st *step) failure(err error) *fsm.Failure {
	e := errs.From(err)
	bare := func(err error) string { return strings.TrimSuffix(err.Error(), " ("+e.Hint+")") } // the hint has a place of its own
	f := &fsm.Failure{Phase: st.key.Phase, Node: st.key.Node, Code: e.Code, Message: clip(bare(err), 1000), Hint: clip(e.Hint, 500),
		LogTail: st.log.lines(), Transient: errs.Transient(err)}
	for cause := err; cause != nil && len(f.Causes) < 10; cause = errors.Unwrap(cause) {
		f.Causes = append(f.Causes, clip(bare(cause), 300))
	}
	var p *panicError
	if errors.As(err, &p) {
		f.Stack, f.Transient = p.stack, false
	} else if f.Stack = e.Stack(); f.Stack == "" {
		f.Stack = errs.New(e.Code, "%w", err).Stack() // it came from another node: where this one gave up
	}
	return f
}

func clip(s string, most int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
