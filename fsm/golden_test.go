package fsm

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "write the golden scripts anew with the output there is")

// A golden script is a sequence of blocks: comments and blank lines, commands, "----", the output, a blank line.
func TestGoldenScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			old, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := (&script{machine: empty(t)}).run(string(old))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(old) {
				t.Errorf("-expected +got:\n%s", cmp.Diff(strings.Split(string(old), "\n"), strings.Split(got, "\n")))
			}
		})
	}
}

type script struct {
	*machine
	out strings.Builder
}

// run gives the script as it reads with the output there is.
func (s *script) run(text string) string {
	var file strings.Builder
	output := false
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		switch {
		case output && line != "":
		case line == "----":
			file.WriteString("----\n" + s.out.String())
			s.out.Reset()
			output = true
		default:
			output = false
			file.WriteString(line + "\n")
			if line != "" && line[0] != '#' {
				s.line(strings.Fields(line))
			}
		}
	}
	return file.String()
}

func (s *script) printf(format string, args ...any) { fmt.Fprintf(&s.out, format, args...) }

// line does one command. Deployments are known by numbers; a word such as builder=n1 is an argument by name.
func (s *script) line(words []string) {
	args := map[string]string{}
	var plain []string
	for _, w := range words[1:] {
		if name, value, ok := strings.Cut(w, "="); ok {
			args[name] = strings.ReplaceAll(value, "_", " ")
		} else {
			plain = append(plain, w)
		}
	}
	switch words[0] {
	case "cluster":
		first := initial()
		first.Node = node(plain[0])
		s.ok(first)
		s.join(plain[1:]...)
	case "term":
		fmt.Sscan(plain[0], &s.term)
	case "timeline":
		s.timeline(s.deployment(s.id(plain[0])))
	case "projects":
		for p := range s.state().Projects("") {
			s.printf("%s active=%s\n", p.Name, short(p.Active))
		}
	case "orders":
		for n := range s.state().Nodes() {
			for r := range s.state().PendingRepairs(n.ID) {
				s.printf("%s: %s %s/%s: %s\n", r.Node, r.Kind, r.Project, short(r.Deployment), r.Reason)
			}
		}
	default:
		s.apply(s.body(words[0], plain, args))
	}
}

func (s *script) id(number string) string {
	n := 0
	if _, err := fmt.Sscan(number, &n); err != nil {
		s.t.Fatalf("%q is no deployment's number", number)
	}
	return nth(n)
}

func short(id string) string {
	if id == "" {
		return "none"
	}
	return strings.TrimLeft(id[len(id)-4:], "0")
}

// body makes a command; those of the leader are bound to the phase the deployment is in unless phase= says another.
func (s *script) body(verb string, plain []string, args map[string]string) Body {
	switch verb {
	case "remove":
		return NodeRemove{ID: plain[0]}
	case "left":
		return NodeLeft{ID: plain[0]}
	}
	id := s.id(plain[0])
	targets := strings.Split(args["targets"], ",")
	if verb == "create" {
		n := 0
		fmt.Sscan(plain[0], &n)
		return creation(n, plain[1])
	}
	d := s.deployment(id)
	phase := d.Phase
	if p, ok := args["phase"]; ok {
		phase = Phase(strings.ReplaceAll(p, " ", "_"))
	}
	failure := Failure{Code: "unhealthy", Message: args["why"], Node: args["node"]}
	switch verb {
	case "start":
		return DeploymentStart{ID: id, Builder: args["builder"], Targets: targets}
	case "assign":
		return DeploymentAssign{ID: id, Phase: phase, Builder: args["builder"], Targets: targets, Reason: args["why"]}
	case "fail":
		return DeploymentFail{ID: id, Phase: phase, Failure: failure}
	case "cancel":
		return DeploymentCancel{ID: id}
	}
	r := StepReport{StepKey: StepKey{Deployment: id, Phase: phase, Node: plain[1]}}
	if d.Step(phase, plain[1]) != nil {
		r = s.report(id, plain[1])
		r.Message = ""
	}
	if a, ok := args["attempt"]; ok {
		fmt.Sscan(a, &r.Attempt)
	}
	switch verb {
	case "done":
		return r
	case "broken":
		return StepReport{StepKey: r.StepKey, Failure: &failure}
	case "retry":
		return DeploymentRetry{ID: id, Phase: phase, Node: plain[1], Attempt: r.Attempt, Reason: args["why"]}
	case "progress":
		percent := 0
		fmt.Sscan(args["percent"], &percent)
		return StepProgress{StepKey: r.StepKey, Percent: percent}
	}
	s.t.Fatalf("the script says %q", verb)
	return nil
}

// apply applies a command and says how every deployment is that it changed.
func (s *script) apply(b Body) {
	r := s.send(s.stamp(b))[0]
	if r.Err != nil {
		s.printf("refused, %s: %s\n", r.Err.Code, readable(r.Err.Message))
	}
	for d := range s.state().DeploymentsSince(s.index - 1) {
		s.printf("%s of %s is %s in %s at %d%%, attempt %d", short(d.ID), d.Project, d.Status, d.Phase, d.PhaseProgress, d.Attempt)
		for _, x := range d.Steps {
			if x.Phase == d.Phase {
				s.printf(", %s %s", x.Node, x.State)
			}
		}
		s.printf("\n")
	}
}

func (s *script) timeline(d *Deployment) {
	for _, e := range d.Events {
		line := fmt.Sprintf("%3d term %d  %-17s %3d%% attempt %d %-3s %s", e.Index, e.Term, e.Phase, e.Progress, e.Attempt, e.Node, readable(e.Message))
		s.printf("%s\n", line)
	}
	for _, x := range d.Steps {
		s.printf("step %s on %s: %s in attempt %d, term %d\n", x.Phase, x.Node, x.State, x.Attempt, x.Term)
	}
	s.printf("serves: %s\n", instances(d))
}

// readable names deployments by their numbers.
func readable(message string) string {
	return strings.ReplaceAll(message, "01ARZ3NDEKTSV4RRFFQ69G", "#")
}
