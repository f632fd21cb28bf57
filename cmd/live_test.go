package cmd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kontiki/fsm"
)

// devNode runs `kontiki server --dev` in this process and gives the environment that leads to it.
func devNode(t *testing.T) (env map[string]string, ingress string) {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	read, write := io.Pipe()
	var log bytes.Buffer // of the server alone; read when it has ended
	ended := make(chan int, 1)
	go func() {
		ended <- Execute(ctx, []string{"server", "--dev", "--json", "--log-level", "warn"},
			Env{In: strings.NewReader(""), Out: write, Err: &log, Getenv: func(string) string { return "" }})
		_ = write.Close()
	}()
	t.Cleanup(func() {
		cancel()
		if code := <-ended; code != ExitOK && code != ExitInterrupted {
			t.Errorf("the node ended with exit code %d:\n%s", code, &log)
		}
		left, err := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "*"))
		if err != nil || len(left) > 0 {
			t.Errorf("the node left %v behind (%v)", left, err)
		}
	})
	line, err := bufio.NewReader(read).ReadBytes('\n')
	if err != nil {
		t.Fatalf("the node does not start: %v", err)
	}
	var at serverAnswer
	if err := json.Unmarshal(line, &at); err != nil {
		t.Fatal(err)
	}
	return map[string]string{"KONTIKI_SERVER": "http://" + at.API, "KONTIKI_TOKEN": at.Token, "HOME": t.TempDir()}, at.Ingress
}

// live runs command lines against a dev node.
type live struct {
	t   *testing.T
	env map[string]string
}

func (l live) run(wantCode int, args ...string) (out, problems string) {
	l.t.Helper()
	var stdout, stderr bytes.Buffer
	code := Execute(l.t.Context(), args, Env{In: strings.NewReader(""), Out: &stdout, Err: &stderr, Patience: 20 * time.Second,
		Getenv: func(key string) string { return l.env[key] }})
	if code != wantCode {
		l.t.Errorf("kontiki %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, wantCode, &stdout, &stderr)
	}
	return stdout.String(), stderr.String()
}

// has runs a command that has to succeed and to print the words.
func (l live) has(args string, words ...string) string {
	l.t.Helper()
	out, _ := l.run(ExitOK, strings.Fields(args)...)
	for _, word := range words {
		if !strings.Contains(out, word) {
			l.t.Errorf("kontiki %s does not print %q:\n%s", args, word, out)
		}
	}
	return out
}

func siteFolder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestCommandsAgainstARunningNode(t *testing.T) {
	env, ingress := devNode(t)
	l := live{t, env}
	site := siteFolder(t, map[string]string{"index.html": "<h1>hello</h1>", "style.css": "body{}"})

	out, said := l.run(ExitOK, "deploy", site, "--project", "hello")
	for _, want := range []string{"+ create project hello, served as hello.kontiki.localhost", "+ upload 2 files, 20 B", "+ run release 1 on dev", "http://hello.kontiki.localhost:"} {
		if !strings.Contains(out, want) {
			t.Errorf("deploy does not print %q:\n%s", want, out)
		}
	}
	if !strings.Contains(said, "active: number 1 serves on 1 of 1 nodes") {
		t.Errorf("deploy says:\n%s", said)
	}
	wantPage(t, ingress, "hello.kontiki.localhost", "<h1>hello</h1>")

	out, _ = l.run(ExitOK, "deploy", site, "--project", "hello", "--label", "again", "--json")
	var last struct {
		Deployment fsm.Deployment `json:"deployment"`
		URL        string         `json:"url"`
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Deployment.Status != fsm.StatusActive || last.URL == "" {
		t.Errorf("the last line of deploy --json is %s (%v)", lines[len(lines)-1], err)
	}

	t.Run("failing deployment", func(t *testing.T) { failingDeployment(t, live{t, env}, ingress) })
	t.Run("looking", func(t *testing.T) { looking(t, live{t, env}, last.Deployment.ID) })
	t.Run("changing", func(t *testing.T) { changing(t, live{t, env}) })
	t.Run("denied", func(t *testing.T) {
		denied := live{t, merge(env, map[string]string{"KONTIKI_TOKEN": "kt_wrong"})}
		if _, said := denied.run(ExitDenied, "projects"); !strings.Contains(said, "next: ") || strings.Contains(said, "kt_wrong") {
			t.Errorf("it says:\n%s", said)
		}
	})
}

func wantPage(t *testing.T, ingress, host, want string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ingress+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || string(body) != want {
		t.Errorf("%s gives %s: %q (%v)", host, res.Status, body, err)
	}
}

func failingDeployment(t *testing.T, l live, ingress string) {
	noIndex := siteFolder(t, map[string]string{"page.txt": "no index"})
	out, said := l.run(ExitDeployment, "deploy", noIndex, "--project", "hello")
	if !strings.Contains(out, "~ replace release 2 (again), which serves until then") {
		t.Errorf("the plan is:\n%s", out)
	}
	for _, want := range []string{"failed in building on node dev", "index.html", "last log lines:", "hint: ", "what served before goes on serving", "next: ", "kontiki status "} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not said:\n%s", want, said)
		}
	}
	wantPage(t, ingress, "hello.kontiki.localhost", "<h1>hello</h1>")

	notAnArchive := writeFile(t, "site.zip", "this is no archive")
	if _, said := l.run(ExitFailed, "deploy", notAnArchive, "--project", "hello"); !strings.Contains(said, "archive") {
		t.Errorf("it says:\n%s", said)
	}
}

func looking(t *testing.T, l live, id string) {
	l.has("status", "leader", "dev", "API", "INGRESS")
	l.has("status hello", "number 2 ("+id+") on 1 of 1 nodes", "number 3", "failed in building")
	l.has("status "+id, "PHASE", "health_check", "done")
	l.has("projects", "hello", id)
	l.has("projects list --json", `{"items":[{"name":"hello"`)
	l.has("deployments --project hello --limit 2", "failed", id)
	l.has("deployments --status superseded", "superseded")
	l.has("peers", "dev", "leader", "embedded")
	l.has("hashes", "dev")
	l.has("repairs", "REASON")
	l.has("settings", "base_domain", "kontiki.localhost")
	l.has("logs "+id, "building", "dev")
	l.has("logs -f --json "+id, `"phase":"building"`)
	l.has("version", "kontiki", "node dev")
	l.has("version --client", "kontiki")
	l.run(ExitNotFound, "status", "nothing")
	l.run(ExitNotFound, "logs", "nothing")
	l.run(ExitNotFound, "deployments", "--project", "nothing")
	l.run(ExitNotFound, "status", "01ARZ3NDEKTSV4RRFFQ69G5FAV")
	if out, _ := l.run(ExitOK, "deployments", "--json", "--status", "cancelled"); out != "{\"items\":[]}\n" {
		t.Errorf("an empty list is %q", out)
	}
}

func changing(t *testing.T, l live) {
	l.has("settings set keep=9 deadlines.building=45m", "keep", "9", "45m0s")
	if _, said := l.run(ExitUsage, "settings", "set", "kep=9"); !strings.Contains(said, "did you mean keep?") {
		t.Errorf("it says:\n%s", said)
	}
	l.run(ExitFailed, "settings", "set", "queue=random")
	l.run(ExitOK, "projects", "create", "empty", "--domain", "www.example.org", "--metadata", "team=web")
	l.run(ExitFailed, "projects", "create", "empty")
	l.has("projects", "www.example.org")
	l.run(ExitNotFound, "logs", "empty")
	if _, said := l.run(ExitUsage, "projects", "delete", "empty"); !strings.Contains(said, "add --yes") {
		t.Errorf("it says:\n%s", said)
	}
	l.run(ExitOK, "projects", "delete", "empty", "--yes")
	l.run(ExitNotFound, "projects", "delete", "empty", "--yes")

	secret := strings.TrimSpace(l.has("token create ci"))
	other := live{t, merge(l.env, map[string]string{"KONTIKI_TOKEN": secret})}
	other.has("projects", "hello")
	var tokens items[fsm.Token]
	if err := json.Unmarshal([]byte(l.has("token list --json")), &tokens); err != nil || len(tokens.Items) != 2 {
		t.Fatalf("%d tokens, %v", len(tokens.Items), err)
	}
	for _, token := range tokens.Items {
		if token.Name == "ci" {
			l.run(ExitOK, "token", "revoke", token.ID, "--yes")
		}
	}
	other.run(ExitDenied, "projects")
	l.has("token join --ttl 10m", "kj1.")
	l.run(ExitUsage, "peers", "remove", "dev")
	l.run(ExitFailed, "peers", "remove", "dev", "--yes")

	site := siteFolder(t, map[string]string{"index.html": "x"})
	id := strings.Fields(l.has("deploy " + site + " --project later --detach"))
	l.has("logs -f "+id[len(id)-1], "health_check")
	l.run(ExitFailed, "cancel", id[len(id)-1], "--yes")
}

func TestInitJoinAndServerRefuseWhatCannotWork(t *testing.T) {
	data := filepath.Join(t.TempDir(), "d1")
	env := map[string]string{"HOME": t.TempDir()}
	ports, err := freePorts(3)
	if err != nil {
		t.Fatal(err)
	}
	addresses := []string{"--cluster-addr", ports[0], "--api-addr", ports[1], "--ingress-addr", ports[2]}
	run := func(wantCode int, args ...string) (out, problems string) {
		t.Helper()
		code, out, problems := cmdline{args: args, env: env}.run(t)
		if code != wantCode {
			t.Errorf("kontiki %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, wantCode, out, problems)
		}
		return out, problems
	}
	run(ExitUsage, "init", "--data", data)
	run(ExitUsage, "server", "--data", data)
	run(ExitUsage, "server", "--dev", "--data", data)
	for _, args := range [][]string{{"init", "--node", "n1"}, {"join", "--node", "n2", "--token", "kj1.rubbish", "https://127.0.0.1:1"}} {
		if _, said := run(ExitUsage, append(args, "--data", data, "--api-addr", "127.0.0.1:0")...); !strings.Contains(said, "--api-addr: 127.0.0.1:0 is no fixed port") {
			t.Errorf("%s says:\n%s", args[0], said)
		}
	}
	out, said := run(ExitOK, append([]string{"init", "--data", data, "--node", "n1"}, addresses...)...)
	if !strings.Contains(out, "kt_") || !strings.Contains(out, "CA fingerprint") || !strings.Contains(said, "next: kontiki server --data "+data) {
		t.Errorf("init prints:\n%s%s", out, said)
	}
	if !strings.Contains(out, "https://"+ports[1]) || strings.Contains(said, "level=") {
		t.Errorf("init prints:\n%s%s", out, said)
	}
	run(ExitUsage, append([]string{"init", "--data", data, "--node", "n1"}, addresses...)...)
	if _, said := run(ExitUsage, "server", "--data", data, "--node", "n2"); !strings.Contains(said, "is that of node n1, not of n2") {
		t.Errorf("server says:\n%s", said)
	}
	other := filepath.Join(t.TempDir(), "d2")
	run(ExitUsage, "join", "--data", other, "--node", "n2", "https://127.0.0.1:1")
	run(ExitDenied, "join", "--data", other, "--node", "n2", "--token", "kj1.rubbish", "https://127.0.0.1:1")
	run(ExitUsage, "join", "--data", other, "--node", "n2", "--token-file", "/nonexistent", "https://127.0.0.1:1")
	if _, err := os.Stat(other); err == nil {
		t.Error("a refused join leaves its data directory behind")
	}
}

func TestInitWritesTheContextFileOnce(t *testing.T) {
	home := t.TempDir()
	init := func(node string) string {
		l := cmdline{args: []string{"init", "--json", "--data", filepath.Join(t.TempDir(), node), "--node", node}, env: map[string]string{"HOME": home}}
		code, out, problems := l.run(t)
		if code != ExitOK {
			t.Fatalf("exit code %d: %s", code, problems)
		}
		return out
	}
	file := filepath.Join(home, ".config", "kontiki", "context.yaml")
	if out := init("n1"); !strings.Contains(out, file) {
		t.Errorf("init prints %s", out)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the context file is %v (%v)", info, err)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if out := init("n2"); strings.Contains(out, file) {
		t.Errorf("a second init says it wrote %s", out)
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Errorf("a second init changed the context (%v)", err)
	}
}

func TestReachable(t *testing.T) {
	for listen, want := range map[string]string{":7400": "h:7400", "0.0.0.0:7400": "h:7400", "[::]:1": "h:1", "10.0.0.1:7400": "10.0.0.1:7400", "rubbish": "rubbish"} {
		if got := reachable(listen, "h"); got != want {
			t.Errorf("%s is reached at %s, want %s", listen, got, want)
		}
	}
}
