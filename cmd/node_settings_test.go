package cmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

// settingsOf loads node settings as a command with these flags would.
func settingsOf(t *testing.T, env map[string]string, args ...string) (*nodeConfig, error) {
	t.Helper()
	a := &app{Env: Env{Err: os.Stderr, Getenv: func(key string) string { return env[key] }}}
	c := &cobra.Command{Use: "x"}
	n := addNodeFlags(a, c)
	if err := c.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return n, n.load("data", "node")
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestTheExampleFileIsGood(t *testing.T) {
	n, err := settingsOf(t, nil, "--config", "../kontiki.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range nodeSettings {
		if _, there := n.values[s.key]; !there || !strings.Contains(n.values[s.key].origin, "kontiki.example.yaml:") && s.key != "docker_host" {
			t.Errorf("the example does not show %s (it comes from %q)", s.key, n.values[s.key].origin)
		}
	}
	cfg, err := n.config()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.MaxUpload != 512<<20 || cfg.ClusterAddr != ":7401" || cfg.Advertise != "10.0.0.1" {
		t.Errorf("the example gives %+v", cfg)
	}
}

func TestBadConfigurationNamesFileLineAndKey(t *testing.T) {
	const good = "data: /d\nnode: n1\n"
	for _, tt := range []struct{ name, content, want, hint string }{
		{"unknown key", good + "ingres_addr: :80\n", ":3:ingres_addr: unknown key", "did you mean ingress_addr?"},
		{"key like no other", good + "colour: blue\n", ":3:colour: unknown key", "the keys are: data, node,"},
		{"key twice", good + "node: n2\n", "node", ""},
		{"bad node name", "data: /d\nnode: N_1\n", `:2:node: "N_1" cannot be the name of a node`, "lower-case"},
		{"not an address", good + "api_addr: 7400\n", `:3:api_addr: "7400" is not a listen address`, "host:port"},
		{"port too high", good + "api_addr: :70000\n", ":3:api_addr", "0 to 65535"},
		{"one port used twice", good + "api_addr: :9000\n\ningress_addr: 127.0.0.1:9000\n", ":5:ingress_addr: port 9000 is already that of", ":3:api_addr"},
		{"default port used", good + "ingress_addr: :7400\n", ":3:ingress_addr: port 7400 is already that of api_addr (default :7400)", "its own port"},
		{"bad engine", good + "engine: podman\n", `:3:engine: "podman" is not one of`, "one of these"},
		{"bad size", good + "max_upload: lots\n", `:3:max_upload: "lots" is not a size`, "MiB"},
		{"unreachable advertise", good + "advertise: 0.0.0.0\n", `:3:advertise: "0.0.0.0" is not a host`, "without a port"},
		{"advertise with port", good + "advertise: example.org:80\n", ":3:advertise", "without a port"},
		{"bad level", good + "log_level: loud\n", ":3:log_level", "one of these"},
		{"a list", good + "engine: [auto]\n", ":3:engine: not a single value", "key: value"},
		{"not a mapping", "- data\n", ":1: not a list of keys", "key: value"},
		{"broken YAML", good + "engine: \"auto\n", ":3", "kontiki.example.yaml"},
		{"missing node", "data: /d\n", "node is missing", ":1:node"},
		{"empty", "# nothing\n", "data is missing", "--data or KONTIKI_DATA"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := writeFile(t, "kontiki.yaml", tt.content)
			_, err := settingsOf(t, nil, "--config", file)
			if err == nil || exitCode(err) != ExitUsage {
				t.Fatalf("error %v with exit code %d", err, exitCode(err))
			}
			want := tt.want
			if strings.HasPrefix(want, ":") {
				want = file + want
			}
			if text := err.Error(); !strings.Contains(text, want) || !strings.Contains(text, tt.hint) {
				t.Errorf("the error is %q; want %q and %q in it", text, want, tt.hint)
			}
		})
	}
	if _, err := settingsOf(t, nil, "--config", "/nonexistent.yaml"); exitCode(err) != ExitUsage {
		t.Errorf("a missing file: %v", err)
	}
}

func TestFlagsWinOverEnvironmentOverFileOverDefault(t *testing.T) {
	file := writeFile(t, "kontiki.yaml", "data: /file\nnode: n1\nengine: docker\nlog_level: debug\nx-team: web\n")
	env := map[string]string{"KONTIKI_DATA": "/env", "KONTIKI_ENGINE": "embedded", "KONTIKI_CONFIG": file}
	n, err := settingsOf(t, env, "--data", "/flag", "--api-addr", ":0", "--ingress-addr", ":0")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, key := range []string{"data", "node", "engine", "log_level", "log_format", "cluster_addr"} {
		got[key] = n.text(key)
	}
	want := map[string]string{"data": "/flag", "node": "n1", "engine": "embedded", "log_level": "debug", "log_format": "auto", "cluster_addr": ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestBadFlagsAndEnvironmentAreNamed(t *testing.T) {
	_, err := settingsOf(t, nil, "--data", "/d", "--node", "n1", "--engine", "x")
	if err == nil || !strings.Contains(err.Error(), `--engine: "x"`) {
		t.Errorf("flag: %v", err)
	}
	_, err = settingsOf(t, map[string]string{"KONTIKI_API_ADDR": "x", "KONTIKI_DATA": "/d", "KONTIKI_NODE": "n1"})
	if err == nil || !strings.Contains(err.Error(), `KONTIKI_API_ADDR: "x"`) {
		t.Errorf("environment: %v", err)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"1": 1, "1048576": 1 << 20, "512MiB": 512 << 20, "2 GB": 2e9, "3kB": 3000, "1024GiB": 1 << 40} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "-1", "MiB", "1.5GiB", "1 PiB", "1025GiB", "9999999999999999999", "5x"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q is taken as %d", text, got)
		}
	}
}
