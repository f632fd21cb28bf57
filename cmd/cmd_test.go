package cmd

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// asKontiki makes the test binary be kontiki: the demo starts its own binary again.
const asKontiki = "CMD_TEST_AS_KONTIKI"

func TestMain(m *testing.M) {
	if os.Getenv(asKontiki) != "" {
		os.Exit(Main())
	}
	os.Exit(m.Run())
}

// line is a command line with its surroundings.
type cmdline struct {
	args     []string
	env      map[string]string
	in       string
	terminal bool
}

func (l cmdline) run(t *testing.T) (code int, out, problems string) {
	t.Helper()
	if l.env["HOME"] == "" {
		l.env = merge(l.env, map[string]string{"HOME": t.TempDir()})
	}
	var stdout, stderr bytes.Buffer
	code = Execute(t.Context(), l.args, Env{In: strings.NewReader(l.in), Out: &stdout, Err: &stderr, Terminal: l.terminal,
		Getenv: func(key string) string { return l.env[key] }, Patience: 50 * time.Millisecond})
	return code, stdout.String(), stderr.String()
}

func merge(all ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range all {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

func kontiki(t *testing.T, args ...string) (code int, out, problems string) {
	t.Helper()
	return cmdline{args: args}.run(t)
}

// golden compares with a file below testdata, or writes it with -rewrite.
func golden(t *testing.T, file, got string) {
	t.Helper()
	path := filepath.Join("testdata", file)
	if *rewrite {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got); if it is meant to: go test ./cmd -rewrite\n%s", path, diff)
	}
}

func TestHelpOfEveryCommandIsAsWritten(t *testing.T) {
	root := newRoot(&app{})
	for _, c := range append(descendants(root), root) {
		name := strings.ReplaceAll(c.CommandPath(), " ", "-")
		t.Run(name, func(t *testing.T) {
			args := append(strings.Fields(c.CommandPath())[1:], "--help")
			code, out, problems := kontiki(t, args...)
			if code != ExitOK || problems != "" {
				t.Fatalf("exit code %d, %q", code, problems)
			}
			golden(t, filepath.Join("help", name+".txt"), out)
			if c.Short == "" || strings.HasSuffix(c.Short, ".") {
				t.Errorf("the short help is %q: a phrase without a full stop", c.Short)
			}
		})
	}
}

func TestWrongCommandLinesEndWithCode2AndTheNextCommand(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want []string
	}{
		{"unknown command", []string{"depoly"}, []string{`unknown command "depoly"`, "deploy", "next: kontiki --help"}},
		{"unknown subcommand", []string{"token", "make"}, []string{`unknown command "make"`, "next: kontiki token --help"}},
		{"unknown flag", []string{"peers", "--fast"}, []string{"unknown flag: --fast", "next: kontiki peers --help"}},
		{"missing argument", []string{"cancel"}, []string{"accepts 1 arg(s)", "next: kontiki cancel --help"}},
		{"missing project", []string{"deploy", "."}, []string{"no project is named", "next: kontiki deploy . --project <name>"}},
		{"bad replicas", []string{"deploy", ".", "-p", "x", "--replicas", "many"}, []string{`replicas is "many"`, "or \"all\""}},
		{"nothing to deploy", []string{"deploy", "/nonexistent", "-p", "x"}, []string{"no such file", "give a folder or an archive"}},
		{"token in clear", []string{"peers", "--server", "http://example.org:7400"}, []string{"would send the token in clear", "https://example.org:7400"}},
		{"bad server", []string{"peers", "--server", "ftp://x"}, []string{"not the address of a node"}},
		{"no such CA file", []string{"peers", "--ca", "/nonexistent"}, []string{"read CA certificate", "kontiki init"}},
		{"bad limit", []string{"deployments", "--limit", "-1"}, []string{"--limit is -1"}},
		{"unknown shell", []string{"completion", "tcsh"}, []string{`invalid argument "tcsh"`}},
		{"nothing to store", []string{"context", "set"}, []string{"nothing to store"}},
		{"no folder to serve", []string{"serve"}, []string{"is not a folder", "--root"}},
		{"unknown engine", []string{"demo", "--engine", "podman"}, []string{`"podman" is not one of embedded, docker, auto`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, out, problems := kontiki(t, tt.args...)
			if code != ExitUsage || out != "" {
				t.Errorf("exit code %d, output %q, want code %d and none", code, out, ExitUsage)
			}
			for _, want := range append(tt.want, "next: ") {
				if !strings.Contains(problems, want) {
					t.Errorf("%q is not said in:\n%s", want, problems)
				}
			}
		})
	}
}

func TestUnreachableNodesEndWithCode3(t *testing.T) {
	free, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	code, _, problems := kontiki(t, "peers", "--server", free[0])
	if code != ExitUnreachable || !strings.Contains(problems, "no node answers") || !strings.Contains(problems, "next: ") {
		t.Errorf("exit code %d:\n%s", code, problems)
	}
	code, _, problems = kontiki(t, "--json", "peers", "--server", free[0])
	if code != ExitUnreachable || !strings.HasPrefix(problems, `{"error":{"code":"unavailable"`) {
		t.Errorf("with --json exit code %d:\n%s", code, problems)
	}
	code, out, _ := kontiki(t, "version", "--server", free[0])
	if code != ExitOK || !strings.Contains(out, "not reached") {
		t.Errorf("version without a node: exit code %d:\n%s", code, out)
	}
}

func TestInterruptedCommandsEndWithCode130(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, problems bytes.Buffer
	env := Env{In: strings.NewReader(""), Out: &out, Err: &problems, Getenv: func(string) string { return "" }}
	if code := Execute(ctx, []string{"peers"}, env); code != ExitInterrupted {
		t.Errorf("exit code %d:\n%s", code, &problems)
	}
}

func TestExitCodesAreExplained(t *testing.T) {
	code, out, _ := kontiki(t, "help", "exit-codes")
	if code != ExitOK {
		t.Fatalf("exit code %d", code)
	}
	for _, known := range []string{"  0 ", "  1 ", "  2 ", "  3 ", "  4 ", "  5 ", "  6 ", "130 "} {
		if !strings.Contains(out, known) {
			t.Errorf("exit code %s is not explained", known)
		}
	}
}

func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		code, out, problems := kontiki(t, "completion", shell)
		if code != ExitOK || !strings.Contains(out, "kontiki") {
			t.Errorf("%s: exit code %d, %d bytes, %s", shell, code, len(out), problems)
		}
	}
	code, out, _ := kontiki(t, "__complete", "dep")
	if code != ExitOK || !strings.Contains(out, "deploy\t") || !strings.Contains(out, "deployments\t") {
		t.Errorf("completing dep: exit code %d:\n%s", code, out)
	}
}

func descendants(c *cobra.Command) []*cobra.Command {
	var all []*cobra.Command
	for _, sub := range c.Commands() {
		if sub.Runnable() {
			all = append(append(all, sub), descendants(sub)...)
		}
	}
	return all
}
