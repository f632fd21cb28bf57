package cmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestContextSetAndShow(t *testing.T) {
	file := filepath.Join(t.TempDir(), "deep", "context.yaml")
	env := map[string]string{"KONTIKI_CONTEXT": file}
	run := func(args ...string) string {
		t.Helper()
		code, out, problems := cmdline{args: args, env: env}.run(t)
		if code != ExitOK {
			t.Fatalf("kontiki %s: exit code %d: %s", strings.Join(args, " "), code, problems)
		}
		return out
	}
	if out := run("context"); !strings.Contains(out, localServer) || !strings.Contains(out, "none") {
		t.Errorf("without a file it shows:\n%s", out)
	}
	run("context", "set", "--server", "https://a:1,https://b:2", "--token", "kt_secret: #1")
	run("context", "set", "--ca", strings.Repeat("ab", 32))
	out := run("context")
	for _, want := range []string{file, "https://a:1, https://b:2", "set", "abab"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not shown:\n%s", want, out)
		}
	}
	if strings.Contains(out, "kt_secret") {
		t.Error("the token is shown")
	}
	if out := run("context", "--json"); !strings.Contains(out, `"token_set":true`) || strings.Contains(out, "kt_secret") {
		t.Errorf("as JSON: %s", out)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v (%v)", info, err)
	}
}

func TestEachPartOfTheAccessHasItsOrder(t *testing.T) {
	file := writeFile(t, "context.yaml", "server: https://file:1\ntoken: from-file\nca: ca-file\n")
	env := map[string]string{"KONTIKI_CONTEXT": file, "KONTIKI_TOKEN": "from-env"}
	a := &app{Env: Env{Getenv: func(key string) string { return env[key] }}}
	a.access.ca = "ca-flag"
	x, err := a.resolve()
	if err != nil || x.token != "from-env" || x.ca != "ca-flag" || strings.Join(x.servers, ",") != "https://file:1" {
		t.Errorf("%+v, %v", x, err)
	}
}

func TestABrokenContextFileIsNamed(t *testing.T) {
	file := writeFile(t, "context.yaml", "server: https://file:1\ntokn: x\n")
	code, _, problems := cmdline{args: []string{"projects"}, env: map[string]string{"KONTIKI_CONTEXT": file}}.run(t)
	if code != ExitUsage || !strings.Contains(problems, file+":2:tokn: unknown key") || !strings.Contains(problems, "did you mean token?") {
		t.Errorf("exit code %d:\n%s", code, problems)
	}
}

func TestACertificateFileIsTrusted(t *testing.T) {
	x := access{servers: []string{"https://127.0.0.1:1"}, ca: writeFile(t, "ca.crt", "no certificate")}
	if _, err := x.client(0); err == nil || !strings.Contains(err.Error(), "holds no certificate") {
		t.Errorf("rubbish: %v", err)
	}
}
