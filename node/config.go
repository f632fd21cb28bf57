package node

import (
	"cmp"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"kontiki/errs"
	"kontiki/fsm"
)

// Version is this build's, set by the linker.
var Version = "dev"

// Config is what a running node needs. Empty addresses are taken from the node's identity.
type Config struct {
	DataDir     string
	ClusterAddr string // listen address for the other nodes
	APIAddr     string // listen address for users
	IngressAddr string // listen address for the users of what is deployed
	Advertise   string // host name or IP by which the others reach this node
	Engine      string // EngineAuto, EngineEmbedded or EngineDocker
	DockerHost  string // address of the Docker engine, "" for the usual one
	MaxUpload   int64  // bytes, 0 for 512 MiB
	Logger      *slog.Logger
	FullPass    time.Duration // how often this node, as leader, asks all nodes what they have; 0 for the usual minute
}

// The engines.
const (
	EngineAuto     = "auto"     // docker when it answers, else embedded
	EngineEmbedded = "embedded" // static sites, served by the node itself
	EngineDocker   = "docker"
)

// The default listen addresses.
const (
	DefaultAPIAddr     = ":7400"
	DefaultClusterAddr = ":7401"
	DefaultIngressAddr = ":7480"
)

// InitOptions make a cluster.
type InitOptions struct {
	Config
	NodeID     string
	BaseDomain string       // "" for the default
	Settings   fsm.Settings // zero for the defaults
}

// InitResult is what Init made. Token is the first admin's and stored nowhere.
type InitResult struct {
	ClusterID, NodeID, Token, Fingerprint string
}

// JoinOptions make a node of an existing cluster.
type JoinOptions struct {
	Config
	NodeID string
	URL    string // of any node's API
	Token  string // as kontiki token join shows it
}

// JoinResult is what Join made.
type JoinResult struct {
	ClusterID, NodeID string
}

func (c Config) withDefaults() Config {
	c.ClusterAddr = cmp.Or(c.ClusterAddr, DefaultClusterAddr)
	c.APIAddr = cmp.Or(c.APIAddr, DefaultAPIAddr)
	c.IngressAddr = cmp.Or(c.IngressAddr, DefaultIngressAddr)
	c.Advertise = cmp.Or(c.Advertise, "127.0.0.1")
	c.Engine = cmp.Or(c.Engine, EngineAuto)
	c.MaxUpload = cmp.Or(c.MaxUpload, 512<<20)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// validate refuses what cannot work; the error is of code Invalid and names the field.
func (c Config) validate() error {
	if c.DataDir == "" {
		return errs.New(errs.Invalid, "no data directory is given").WithField("data").WithHint("name one with --data")
	}
	ports := map[string]string{}
	for _, a := range []struct{ field, addr string }{
		{"cluster_addr", c.ClusterAddr}, {"api_addr", c.APIAddr}, {"ingress_addr", c.IngressAddr},
	} {
		_, port, err := net.SplitHostPort(a.addr)
		if err != nil {
			return errs.New(errs.Invalid, "%s is %q, which is no listen address", a.field, a.addr).WithField(a.field).WithHint("give host:port or :port")
		}
		if other, taken := ports[port]; taken && port != "0" {
			return errs.New(errs.Invalid, "%s and %s both want port %s", other, a.field, port).WithField(a.field).WithHint("give each its own")
		}
		ports[port] = a.field
	}
	switch c.Engine {
	case EngineAuto, EngineEmbedded, EngineDocker:
		return nil
	}
	return errs.New(errs.Invalid, "engine is %q", c.Engine).WithField("engine").WithHint("give auto, embedded or docker")
}

func (c Config) path(parts ...string) string {
	return filepath.Join(append([]string{c.DataDir}, parts...)...)
}

// advertised gives the address by which others reach a listen address of this node.
func (c Config) advertised(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if host == "" || net.ParseIP(host).IsUnspecified() {
		host = c.Advertise
	}
	return net.JoinHostPort(host, port)
}
