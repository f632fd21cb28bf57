package cmd

import (
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"kontiki/errs"
	"kontiki/fsm"
	"kontiki/node"
)

// setting is one thing about a node that can be configured: as flag --<key with dashes>, as environment variable
// KONTIKI_<KEY> or as key of the configuration file, in this order.
type setting struct {
	key, usage, fallback string
	check                func(string) error // nil takes anything
}

var nodeSettings = []setting{
	{"data", "the node's data directory", "", nil},
	{"node", "the node's name: small letters, digits, dashes", "", func(s string) error { return fsm.CheckName("node", s) }},
	{"advertise", "host name or IP by which the other nodes reach this one", "", checkHost},
	{"cluster_addr", "listen address for the other nodes (default " + node.DefaultClusterAddr + ")", "", checkAddress},
	{"api_addr", "listen address for the API (default " + node.DefaultAPIAddr + ")", "", checkAddress},
	{"ingress_addr", "listen address for the users of what is deployed (default " + node.DefaultIngressAddr + ")", "", checkAddress},
	{"engine", "auto, embedded or docker", node.EngineAuto, oneOf(node.EngineAuto, node.EngineEmbedded, node.EngineDocker)},
	{"docker_host", "address of the Docker engine", "", nil},
	{"max_upload", "the largest upload", "512MiB", func(s string) error { _, err := parseSize(s); return err }},
	{"log_level", "debug, info, warn or error", "info", oneOf("debug", "info", "warn", "error")},
	{"log_format", "text, json, or auto: text on a terminal", "auto", oneOf("auto", "text", "json")},
}

// nodeConfig is what a node's flags, environment and configuration file say.
type nodeConfig struct {
	app    *app
	cmd    *cobra.Command
	values map[string]value
}

// addNodeFlags gives a command the node settings as flags, and --config.
func addNodeFlags(a *app, c *cobra.Command) *nodeConfig {
	c.Flags().String("config", "", "configuration file, see kontiki.example.yaml (KONTIKI_CONFIG)")
	for _, s := range nodeSettings {
		c.Flags().String(flagName(s.key), s.fallback, s.usage)
	}
	return &nodeConfig{app: a, cmd: c}
}

func flagName(key string) string { return strings.ReplaceAll(key, "_", "-") }
func envName(key string) string  { return "KONTIKI_" + strings.ToUpper(key) }

// load reads and checks the settings. Every error leads to exit code 2 and says where the value stands.
func (n *nodeConfig) load(required ...string) error {
	keys := make([]string, len(nodeSettings))
	for i, s := range nodeSettings {
		keys[i] = s.key
	}
	file := first(n.cmd.Flag("config").Value.String(), n.app.Getenv("KONTIKI_CONFIG"))
	n.values = map[string]value{}
	if file != "" {
		found, err := readYAML(file, keys)
		if err != nil {
			return err
		}
		n.values = found
	}
	for _, s := range nodeSettings {
		if err := n.settle(s); err != nil {
			return err
		}
	}
	for _, key := range required {
		if n.text(key) == "" {
			at := fmt.Sprintf("--%s or %s", flagName(key), envName(key))
			if file != "" {
				at += ", or as " + file + ":1:" + key
			}
			return usage("give it as "+at, "%s is missing", key)
		}
	}
	return n.checkPorts()
}

// settle decides where one setting's value comes from and checks it.
func (n *nodeConfig) settle(s setting) error {
	flag := n.cmd.Flag(flagName(s.key))
	switch env := n.app.Getenv(envName(s.key)); {
	case flag.Changed:
		n.values[s.key] = value{text: flag.Value.String(), origin: "--" + flagName(s.key)}
	case env != "":
		n.values[s.key] = value{text: env, origin: envName(s.key)}
	case n.values[s.key].text == "":
		n.values[s.key] = value{text: s.fallback, origin: s.key}
		return nil
	}
	v := n.values[s.key]
	if s.check == nil {
		return nil
	}
	if err := s.check(v.text); err != nil {
		e := errs.From(err)
		return usage(e.Hint, "%s: %s", v.origin, e.Message)
	}
	return nil
}

// prefer replaces a setting's default where nobody chose a value.
func (n *nodeConfig) prefer(key, text string) {
	if n.values[key].origin == key {
		n.values[key] = value{text: text, origin: key}
	}
}

func (n *nodeConfig) text(key string) string { return n.values[key].text }

// checkPorts refuses two listeners on one port.
func (n *nodeConfig) checkPorts() error {
	keys := []string{"cluster_addr", "api_addr", "ingress_addr"}
	defaults := map[string]string{keys[0]: node.DefaultClusterAddr, keys[1]: node.DefaultAPIAddr, keys[2]: node.DefaultIngressAddr}
	taken := map[string]string{} // port to what has it
	for _, key := range keys {
		v := n.values[key]
		origin := v.origin
		if v.text == "" {
			v.text = defaults[key]
			origin = key + " (default " + v.text + ")"
		}
		_, port, err := net.SplitHostPort(v.text)
		if err != nil || port == "0" {
			continue
		}
		if other := taken[port]; other != "" {
			return usage("give each its own port", "%s: port %s is already that of %s", origin, port, other)
		}
		taken[port] = origin
	}
	return nil
}

// refuseFreePorts refuses port 0 for a node that others must find where it said it would be.
func (n *nodeConfig) refuseFreePorts() error {
	for _, key := range []string{"cluster_addr", "api_addr", "ingress_addr"} {
		if _, port, err := net.SplitHostPort(n.text(key)); err == nil && strings.Trim(port, "0") == "" {
			return usage("give the port it will listen on; only kontiki server --dev takes any that is free", "%s: %s is no fixed port", n.values[key].origin, n.text(key))
		}
	}
	return nil
}

// config gives what package node takes.
func (n *nodeConfig) config() (node.Config, error) {
	most, err := parseSize(n.text("max_upload"))
	if err != nil {
		return node.Config{}, err
	}
	return node.Config{
		DataDir: n.text("data"), Advertise: n.text("advertise"), Engine: n.text("engine"), DockerHost: n.text("docker_host"),
		ClusterAddr: n.text("cluster_addr"), APIAddr: n.text("api_addr"), IngressAddr: n.text("ingress_addr"),
		MaxUpload: most, Logger: n.logger(),
	}, nil
}

// logger writes to standard error.
func (n *nodeConfig) logger() *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(n.text("log_level"))); err != nil {
		level = slog.LevelInfo // cannot be: it was checked
	}
	options := &slog.HandlerOptions{Level: level}
	if format := n.text("log_format"); format == "json" || format == "auto" && !n.app.Terminal {
		return slog.New(slog.NewJSONHandler(n.app.Err, options))
	}
	return slog.New(slog.NewTextHandler(n.app.Err, options))
}

func checkAddress(s string) error {
	host, port, err := net.SplitHostPort(s)
	n, portErr := strconv.ParseUint(port, 10, 16)
	if err == nil && portErr == nil && n <= 65535 && !strings.ContainsAny(host, " /") {
		return nil
	}
	return errs.New(errs.Invalid, "%q is not a listen address", s).WithHint("give host:port or :port, the port from 0 to 65535")
}

func checkHost(s string) error {
	ip := net.ParseIP(s)
	if s == "" || strings.ContainsAny(s, " /:") && ip == nil || ip != nil && ip.IsUnspecified() {
		return errs.New(errs.Invalid, "%q is not a host the others could reach", s).WithHint("give a host name or an IP, without a port")
	}
	return nil
}

func oneOf(all ...string) func(string) error {
	return func(s string) error {
		if slices.Contains(all, s) {
			return nil
		}
		return errs.New(errs.Invalid, "%q is not one of %s", s, strings.Join(all, ", ")).WithHint("give one of these")
	}
}

// parseSize reads bytes such as 1048576, 512MiB or 2GB.
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "kKMGTiB ")
	n, err := strconv.ParseInt(digits, 10, 64)
	units := map[string]int64{"": 1, "B": 1, "KB": 1e3, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
	unit, known := units[strings.TrimSpace(s[len(digits):])]
	if err != nil || !known || n < 1 || n > 1<<40/unit {
		return 0, errs.New(errs.Invalid, "%q is not a size", s).WithHint("give bytes, or a number with KiB, MiB or GiB, up to 1024GiB")
	}
	return n * unit, nil
}
