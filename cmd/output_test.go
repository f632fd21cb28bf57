package cmd

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kontiki/api"
	"kontiki/errs"
	"kontiki/fsm"
)

func TestRenderPlan(t *testing.T) {
	older := api.PlanDeployment{ID: "D1", Number: 1, Label: "v1", Status: fsm.StatusActive}
	for _, tt := range []struct {
		name    string
		plan    api.Plan
		content content
		want    string
	}{
		{"the first of a new project", api.Plan{Project: "hello", CreateProject: true, Number: 1, Nodes: []string{"n1", "n2"}, Host: "hello.example.org"},
			content{files: 301, bytes: 686984}, `Plan for project hello:
  + create project hello, served as hello.example.org
  + upload 301 files, 670.9 KiB
  + run release 1 on n1, n2
`},
		{"a replacement in a queue", api.Plan{Project: "hello", Number: 4, Nodes: []string{"n1"}, Replaces: &older,
			Waits:   []api.PlanDeployment{{Number: 2, Status: fsm.StatusRunning}},
			Cancels: []api.PlanDeployment{{Number: 3, Status: fsm.StatusQueued}}},
			content{path: "site.zip", archive: true, bytes: 10}, `Plan for project hello:
  + upload site.zip, 10 B
  - cancel number 3, which is queued
    wait for number 2, which is running
  + run release 4 on n1
  ~ replace release 1 (v1), which serves until then
`},
		{"no node is ready", api.Plan{Project: "hello", Number: 2}, content{files: 1, bytes: 1}, `Plan for project hello:
  + upload 1 file, 1 B
  + run release 2 on no node: none is ready
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, renderPlan(tt.plan, tt.content)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSiteURL(t *testing.T) {
	for ingress, want := range map[string]string{"10.0.0.1:80": "http://a.example.org/", "10.0.0.1:7480": "http://a.example.org:7480/", "": "http://a.example.org/"} {
		if got := siteURL("a.example.org", []api.Peer{{Node: fsm.Node{IngressAddr: ingress}}}); got != want {
			t.Errorf("ingress %q gives %s, want %s", ingress, got, want)
		}
	}
}

func TestWriteFailure(t *testing.T) {
	var out bytes.Buffer
	writeFailure(&out, "D7", &fsm.Failure{Phase: fsm.PhaseCopyingFiles, Node: "n2", Code: errs.DiskFull, Message: "extract the release: no room (free 3 MB)",
		Hint: "free 3 MB", Causes: []string{"extract the release: no room", "write: no space left on device"}, LogTail: []string{"started", "file 17"}})
	want := `failed in copying_files on node n2: extract the release: no room
  because: write: no space left on device
  last log lines:
    | started
    | file 17
  hint: free 3 MB
  all of it: kontiki logs D7
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestDeploymentErrorKeepsTheCause(t *testing.T) {
	failed := fsm.Deployment{ID: "D1", Progress: fsm.Progress{Status: fsm.StatusFailed, Failure: &fsm.Failure{Code: errs.DiskFull}}}
	if err := deploymentError(failed); errs.CodeOf(err) != errs.DiskFull || !strings.Contains(err.Error(), "kontiki status D1") {
		t.Error(err)
	}
	cancelled := fsm.Deployment{ID: "D2", Progress: fsm.Progress{Status: fsm.StatusCancelled}}
	if err := deploymentError(cancelled); !strings.Contains(err.Error(), "was cancelled") {
		t.Error(err)
	}
}

func TestTheBarIsDrawnOnTerminalsOnly(t *testing.T) {
	event := api.Event{Type: api.EventLine, EventState: api.EventState{Phase: fsm.PhaseBuilding, PhaseProgress: 50, Attempt: 2},
		Event: &fsm.Event{Phase: fsm.PhaseBuilding, Progress: 30, Node: "n1", Message: "entered building"}}
	for _, tt := range []struct {
		terminal, json bool
		out, err       string
	}{
		{false, false, "", " 30 %  building          n1       entered building\n"},
		{true, false, "", "entered building\n\r\x1b[K[############------------]  50 %  building, attempt 2"},
		{true, true, `{"type":"event"`, ""},
	} {
		var out, problems bytes.Buffer
		a := &app{Env: Env{Out: &out, Err: &problems, Terminal: tt.terminal}, json: tt.json}
		w := &watcher{app: a, bar: a.newBar()}
		if err := w.event(event); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), tt.out) || !strings.Contains(problems.String(), tt.err) || tt.out == "" && out.Len() > 0 {
			t.Errorf("terminal %v, json %v: out %q, err %q", tt.terminal, tt.json, &out, &problems)
		}
		before := problems.Len()
		w.bar.clear()
		if erased := problems.Len() > before; erased != (tt.terminal && !tt.json) {
			t.Errorf("terminal %v, json %v: cleared %v", tt.terminal, tt.json, erased)
		}
	}
}

func TestConfirm(t *testing.T) {
	for _, tt := range []struct {
		name     string
		yes      bool
		terminal bool
		in       string
		code     int
	}{
		{"told so", true, false, "", ExitOK},
		{"nobody there", false, false, "y\n", ExitUsage},
		{"yes", false, true, "Y\n", ExitOK},
		{"no", false, true, "n\n", ExitFailed},
		{"nothing", false, true, "", ExitFailed},
	} {
		var problems bytes.Buffer
		a := &app{Env: Env{In: strings.NewReader(tt.in), Err: &problems, Terminal: tt.terminal}}
		err := a.confirm(tt.yes, "Delete project hello for good?")
		code := ExitOK
		if err != nil {
			code = exitCode(err)
		}
		if code != tt.code {
			t.Errorf("%s: exit code %d, want %d (%v)", tt.name, code, tt.code, err)
		}
		if tt.terminal && !strings.Contains(problems.String(), "Delete project hello for good? [y/N]") {
			t.Errorf("%s: asks %q", tt.name, &problems)
		}
	}
}

func TestTextsForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 5 << 20: "5.0 MiB", 3 << 30: "3.0 GiB", 2 << 40: "2.0 TiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) is %s, want %s", n, got, want)
		}
	}
	now := fsm.Now()
	for ago, want := range map[time.Duration]string{0: "0s ago", 90 * time.Second: "1m ago", 5 * time.Hour: "5h ago", 72 * time.Hour: "3d ago", -time.Hour: "0s ago"} {
		if got := age(now - fsm.Time(ago.Milliseconds())); got != want {
			t.Errorf("%s ago is %s, want %s", ago, got, want)
		}
	}
	if age(0) != "-" || orDash("") != "-" {
		t.Error("nothing is not a dash")
	}
}

func TestSettingChanges(t *testing.T) {
	old := fsm.Settings{Keep: 5, Queue: "latest", Deadlines: map[fsm.Phase]fsm.Millis{fsm.PhaseBuilding: 1000, fsm.PhaseHealthCheck: 2000}}
	changes, err := settingChanges(old, []string{"keep=9", "queue=all", "deadlines.building=45m"})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"keep": "9", "queue": "all"}
	for name, text := range want {
		if got, ok := changes[name]; !ok || text != toText(got) {
			t.Errorf("%s is %v, want %s", name, got, text)
		}
	}
	deadlines, ok := changes["deadlines"].(map[string]any)
	if !ok || deadlines["building"] != "45m" || deadlines["health_check"] != fsm.Millis(2000) {
		t.Errorf("deadlines are %v: those that are not named stay", changes["deadlines"])
	}
	for _, bad := range []string{"keep", "=1", "kep=1", "deadlines.nothing=1m"} {
		if _, err := settingChanges(old, []string{bad}); exitCode(err) != ExitUsage {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func toText(v any) string {
	if s, ok := v.(interface{ String() string }); ok {
		return s.String()
	}
	s, _ := v.(string)
	return s
}
