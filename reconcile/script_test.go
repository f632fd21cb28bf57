package reconcile

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"kontiki/errs"
	"kontiki/fsm"
)

var rewrite = flag.Bool("rewrite", false, "write what Plan gives into testdata instead of comparing with it")

// The files of testdata hold cases that are apart by an empty line: comments saying why the case is there, lines that
// bring about a state and an observation (the verbs are in script.verbs), "----", and the commands Plan gives.
func TestPlanScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, c := range strings.Split(strings.TrimRight(string(text), "\n"), "\n\n") {
				input, _, _ := strings.Cut(c, "----")
				out = append(out, input+"----\n"+runScript(t, input))
			}
			got := strings.TrimRight(strings.Join(out, "\n"), "\n") + "\n"
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := gocmp.Diff(string(text), got); diff != "" {
				t.Errorf("Plan gives other commands than %s says (-rewrite takes them over):\n%s", file, diff)
			}
		})
	}
}

func runScript(t *testing.T, input string) string {
	s := &script{t: t, settings: fsm.DefaultSettings(), o: Observation{Silent: map[string]time.Duration{},
		Idle: map[string]time.Duration{}, InStep: map[StepID]time.Duration{}, Scope: map[string]bool{}}}
	for line := range strings.Lines(input) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		if err := s.line(words[0], words[1:]); err != nil {
			t.Fatalf("%s: %v", strings.TrimSpace(line), err)
		}
	}
	bodies := Plan(s.w.f.State(), s.o)
	lines := s.w.describe(bodies)
	checkPlan(t, s.w, s.o, bodies)
	return strings.Join(append(lines, ""), "\n")
}

// script carries out the lines of one case.
type script struct {
	t        *testing.T
	w        *world
	settings fsm.Settings
	o        Observation
}

func (s *script) line(verb string, args []string) error {
	if verb == "settings" {
		return s.set(args)
	}
	if verb == "nodes" {
		s.w = newWorld(s.t, s.settings, args...)
		for _, n := range args {
			s.o.Silent[n] = 0
		}
		return nil
	}
	do, ok := s.verbs()[verb]
	if !ok || s.w == nil {
		return errors.New("there is no such verb, or no nodes yet")
	}
	return do(args)
}

// verbs are what a line may say; args are its further words.
func (s *script) verbs() map[string]func(args []string) error {
	w := s.w
	return map[string]func(args []string) error{
		// queue <deployment> <project> <replicas> <holder>…
		"queue": func(a []string) error {
			n, err := fsm.ParseReplicas(a[2])
			if err == nil {
				w.create(a[0], a[1], n, a[3:]...)
			}
			return err
		},
		"start": func(a []string) error { // start <deployment> <builder> <target>…
			return w.try(fsm.DeploymentStart{ID: w.id(a[0]), Builder: a[1], Targets: a[2:]})
		},
		"until": func(a []string) error { w.until(a[0], fsm.Phase(a[1])); return nil }, // until <deployment> <phase>
		"done":  func(a []string) error { return w.report(a[0], a[1], nil) },           // done <deployment> <node>
		"fail":  s.fail,
		"node": func(a []string) error {
			return w.try(fsm.NodeStatus{ID: a[0], State: fsm.NodeState(a[1]), Reason: "told"})
		},
		"remove": func(a []string) error { // all of it
			delete(s.o.Silent, a[0])
			if err := w.try(fsm.NodeRemove{ID: a[0]}); err != nil {
				return err
			}
			return w.try(fsm.NodeLeft{ID: a[0]})
		},
		"leave": func(a []string) error { return w.try(fsm.NodeRemove{ID: a[0]}) }, // its first step
		"holds": func(a []string) error { // holds <blob> <node>…
			for _, n := range a[1:] {
				if err := w.try(fsm.BlobHeld{Digest: w.digest(a[0]), Size: 1, Node: n}); err != nil {
					return err
				}
			}
			return nil
		},
		// repair <kind> <node> <project or -> <deployment or ->
		"repair": func(a []string) error {
			return w.try(fsm.RepairOrder{Repair: fsm.RepairKind(a[0]), Node: a[1], Project: a[2], Deployment: w.id(a[3])})
		},
		// inventory <node> <project> <deployment> <part that is there>…
		"inventory": func(a []string) error {
			has := func(part string) bool { return slices.Contains(a[3:], part) }
			if s.o.Inventories == nil {
				s.o.Inventories = map[string][]Holding{}
			}
			s.o.Inventories[a[0]] = append(s.o.Inventories[a[0]], Holding{Project: a[1], Deployment: w.id(a[2]),
				Release: has("release"), Current: has("current"), Webroot: has("webroot"), Server: has("server")})
			return nil
		},
		"silent": s.silent,
		"idle":   s.idle,
		"full":   func([]string) error { s.o.Scope = nil; return nil }, // a full pass
		"scope": func(a []string) error { // scope <project>…: their placement is judged; by default none's
			for _, p := range a {
				s.o.Scope[p] = true
			}
			return nil
		},
	}
}

// fail <deployment> <node> transient|final: the step at hand failed.
func (s *script) fail(a []string) error {
	d := s.w.deployment(a[0])
	return s.w.report(a[0], a[1], &fsm.Failure{Phase: d.Phase, Node: a[1], Code: errs.Unavailable, Message: "no room", Transient: a[2] == "transient"})
}

// silent <node>=<duration or never>…
func (s *script) silent(a []string) error {
	for _, word := range a {
		node, value, _ := strings.Cut(word, "=")
		if value == "never" {
			delete(s.o.Silent, node)
			continue
		}
		d, err := time.ParseDuration(value)
		if err != nil {
			return err
		}
		s.o.Silent[node] = d
	}
	return nil
}

// idle <deployment> <for> [<node>=<in its step for>…]: without a node, all have been in their steps for as long.
func (s *script) idle(a []string) error {
	d := s.w.deployment(a[0])
	idle, err := time.ParseDuration(a[1])
	if err != nil {
		return err
	}
	s.o.Idle[d.ID] = idle
	steps := map[string]time.Duration{}
	for _, word := range a[2:] {
		node, value, _ := strings.Cut(word, "=")
		if steps[node], err = time.ParseDuration(value); err != nil {
			return err
		}
	}
	for _, st := range d.Steps {
		in, ok := steps[st.Node]
		if !ok && len(steps) == 0 {
			in = idle
		}
		if st.Phase == d.Phase {
			s.o.InStep[StepID{d.ID, st.Phase, st.Node, st.Attempt, st.State}] = in
		}
	}
	return nil
}

// set takes key=value pairs.
func (s *script) set(args []string) error {
	for _, word := range args {
		key, value, _ := strings.Cut(word, "=")
		if key == "queue" {
			s.settings.Queue = value
			continue
		}
		n, err := strconv.Atoi(value)
		if err != nil {
			return err
		}
		switch key {
		case "builds":
			s.settings.Builds = n
		case "keep":
			s.settings.Keep = n
		case "attempts":
			s.settings.MaxAttempts = n
		default:
			return fmt.Errorf("no setting %q", key)
		}
	}
	return nil
}

// describe writes commands with the names tests use.
func (w *world) describe(bodies []fsm.Body) []string {
	var lines []string
	for _, b := range bodies {
		line := string(b.Kind())
		switch b := b.(type) {
		case fsm.NodeStatus:
			line += fmt.Sprintf(" %s %s (%s)", b.ID, b.State, b.Reason)
		case fsm.NodeLeft:
			line += " " + b.ID
		case fsm.DeploymentStart:
			line += fmt.Sprintf(" %s builder=%s targets=%v", w.named[b.ID], b.Builder, b.Targets)
		case fsm.DeploymentAssign:
			line += fmt.Sprintf(" %s %s builder=%s targets=%v (%s)", w.named[b.ID], b.Phase, b.Builder, b.Targets, b.Reason)
		case fsm.DeploymentRetry:
			line += fmt.Sprintf(" %s %s %s after attempt %d (%s)", w.named[b.ID], b.Phase, b.Node, b.Attempt, b.Reason)
		case fsm.DeploymentFail:
			line += fmt.Sprintf(" %s %s %s %s: %s", w.named[b.ID], b.Phase, b.Failure.Node, b.Failure.Code, b.Failure.Message)
		case fsm.RepairOrder:
			what := cmp.Or(w.named[b.Digest], b.Project+" "+w.named[b.Deployment])
			line += fmt.Sprintf(" %s %s %s (%s)", b.Repair, b.Node, what, b.Reason)
		default:
			w.t.Fatalf("Plan gives a %T, which no script shows", b)
		}
		lines = append(lines, line)
	}
	return lines
}

// failer is what a test and a property have in common.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// checkPlan checks what holds for every plan: it is the same for the same input, orders nothing of strangers, removes
// nothing that serves and no more than the brake lets through, every command is accepted, and then none comes again.
func checkPlan(t failer, w *world, o Observation, bodies []fsm.Body) {
	t.Helper()
	before := w.f.State()
	if again := Plan(before, o); !gocmp.Equal(bodies, again) {
		t.Fatalf("two plans of one state differ:\n%s", gocmp.Diff(bodies, again))
	}
	checkOrders(t, before, bodies)
	for _, b := range bodies {
		if err := w.try(b); err != nil {
			t.Fatalf("the plan's %s %+v is refused: %v", b.Kind(), b, err)
		}
	}
	for _, b := range Plan(w.f.State(), o) {
		if slices.ContainsFunc(bodies, func(earlier fsm.Body) bool { return gocmp.Equal(earlier, b) }) {
			t.Fatalf("the same is planned again once it has been applied: %s %+v", b.Kind(), b)
		}
	}
}

func checkOrders(t failer, s *fsm.State, bodies []fsm.Body) {
	t.Helper()
	removals, holds := map[string]int{}, map[string]int{}
	for b := range s.Blobs() {
		for _, n := range b.Nodes {
			holds[n]++
		}
	}
	for _, b := range bodies {
		for _, n := range participants(b) {
			if s.Node(n) == nil {
				t.Fatalf("%s %+v names %s, which is no member", b.Kind(), b, n)
			}
		}
		r, ok := b.(fsm.RepairOrder)
		if !ok || r.Repair != fsm.RepairCleanup && r.Repair != fsm.RepairDropBlob {
			continue
		}
		removals[r.Node]++
		if d := s.Deployment(r.Deployment); d != nil && d.Status != fsm.StatusSuperseded {
			t.Fatalf("%+v removes a release that is %s", r, d.Status)
		}
		for d := range s.Deployments("") {
			live := d.Status == fsm.StatusQueued || d.Status == fsm.StatusRunning || d.Status == fsm.StatusActive
			if live && r.Digest != "" && (d.Source.Digest == r.Digest || d.Artifact != nil && d.Artifact.Manifest == r.Digest) {
				t.Fatalf("%+v removes a blob that %s needs", r, d.ID)
			}
		}
	}
	for n, count := range removals {
		if count > max(5, holds[n]/5) {
			t.Fatalf("%d removals on %s in one pass, which holds %d blobs", count, n, holds[n])
		}
	}
}

// participants are the nodes a command gives something to do.
func participants(b fsm.Body) []string {
	switch b := b.(type) {
	case fsm.NodeStatus:
		return []string{b.ID}
	case fsm.DeploymentStart:
		return append([]string{b.Builder}, b.Targets...)
	case fsm.DeploymentAssign:
		return append([]string{b.Builder}, b.Targets...)
	case fsm.DeploymentRetry:
		return []string{b.Node}
	case fsm.RepairOrder:
		return []string{b.Node}
	}
	return nil
}
