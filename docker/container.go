package docker

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/go-connections/nat"

	"kontiki/fsm"
)

// The labels of a server. The first five say that it is ours; config tells whether it is as it should be.
const (
	labelCluster    = "kontiki.cluster"
	labelNode       = "kontiki.node"
	labelProject    = "kontiki.project"
	labelRole       = "kontiki.role"
	labelManaged    = "kontiki.managed"
	labelDeployment = "kontiki.deployment" // empty: a static server serves all releases of its project
	labelSite       = "kontiki.site"       // device and inode of the mounted folder: a new folder of that name is not in the mount
	labelConfig     = "kontiki.config"     // digest of everything the container was made from

	roleStatic = "static"
)

const (
	siteMount  = "/site"
	serverPort = nat.Port("80/tcp")

	memoryLimit = 256 << 20 // bytes, page cache included, which the kernel gives back under pressure
	softMemory  = "GOMEMLIMIT=192MiB"
	pidsLimit   = 512
	// maxRetries is how often the engine restarts a server that ended with an error; then the leader takes over. A server
	// that is ended by a signal exits non-zero too, so that the engine starts it again after a restart of its own or of
	// the machine. It leaves alone what it was told to stop, whatever the exit code: so this never fights RemoveServer.
	maxRetries = 3
	nobody     = "65534" // user and group when the node itself is root
)

// server is a project's container as it should be.
type server struct {
	project string
	name    string
	config  *container.Config
	host    *container.HostConfig
}

// want is the one constructor of servers, for new ones and for those that are replaced.
func (e *Engine) want(project string, health fsm.Health) (server, error) {
	dir, site, err := e.siteFolder(project)
	if err != nil {
		return server{}, err
	}
	labels := e.labels(project)
	labels[labelDeployment], labels[labelSite] = "", site
	pids := int64(pidsLimit)
	s := server{project: project, name: e.name(project), config: &container.Config{
		Image: e.binary.tag(), Entrypoint: []string{binaryPath}, Cmd: e.cfg.Command, User: user(), Env: []string{softMemory},
		Labels: labels, ExposedPorts: nat.PortSet{serverPort: {}},
		Healthcheck: &container.HealthConfig{Test: append([]string{"CMD", binaryPath}, e.cfg.Check...),
			Interval: health.Interval.Std(), Timeout: health.Timeout.Std(), Retries: health.Retries, StartPeriod: health.StartPeriod.Std()},
	}, host: &container.HostConfig{
		Mounts:        []mount.Mount{{Type: mount.TypeBind, Source: dir, Target: siteMount, ReadOnly: true}},
		PortBindings:  nat.PortMap{serverPort: {{HostIP: "127.0.0.1"}}}, // the engine chooses the port
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyOnFailure, MaximumRetryCount: maxRetries},
		LogConfig:     container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "5m", "max-file": "2"}},
		// An unprivileged user may listen on port 80 by this setting, which is of the container's own network.
		Sysctls:        map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"},
		SecurityOpt:    []string{"no-new-privileges:true"},
		CapDrop:        []string{"ALL"},
		ReadonlyRootfs: true,
		Resources:      container.Resources{Memory: memoryLimit, PidsLimit: &pids},
	}}
	s.config.Labels[labelConfig], err = s.digest()
	return s, err
}

// digest stands for everything the container is made from.
func (s server) digest() (string, error) {
	b, err := json.Marshal([]any{s.config, s.host})
	if err != nil {
		return "", fmt.Errorf("encode the server's configuration: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16]), nil
}

// siteFolder gives the project's folder, which it makes if need be, and what tells it from another of the same name.
func (e *Engine) siteFolder(project string) (dir, id string, err error) {
	dir = filepath.Join(e.cfg.DataDir, "static", project)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", "", fmt.Errorf("make the project's folder: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return "", "", fmt.Errorf("look at the project's folder: %w", err)
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		id = fmt.Sprintf("%d:%d", s.Dev, s.Ino)
	}
	return dir, id, nil
}

// user is whom the server runs as: the node's own user, or nobody when that is root. Releases can be read by all.
func user() string {
	if os.Getuid() == 0 {
		return nobody + ":" + nobody
	}
	return fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())
}

// name is the same each time, so that a reply that was lost leaves no second container. The cluster is named by the
// last characters of its ID: the first ones of IDs made at about the same time are alike.
func (e *Engine) name(project string) string {
	id := e.cfg.ClusterID
	return strings.ToLower("kontiki-" + project + "-static-" + e.cfg.NodeID + "-" + id[max(0, len(id)-6):])
}

// labels are those that make a container ours.
func (e *Engine) labels(project string) map[string]string {
	l := map[string]string{labelCluster: e.cfg.ClusterID, labelNode: e.cfg.NodeID, labelRole: roleStatic, labelManaged: "true"}
	if project != "" {
		l[labelProject] = project
	}
	return l
}

// owned reports whether a container with these labels is our server of the project, or of any project for "".
func (e *Engine) owned(labels map[string]string, project string) bool {
	for k, v := range e.labels(project) {
		if labels[k] != v {
			return false
		}
	}
	return labels[labelProject] != ""
}

// filter asks the engine for our servers of the project, or of all projects for "".
func (e *Engine) filter(project string) filters.Args {
	args := filters.NewArgs()
	for k, v := range maps.All(e.labels(project)) {
		args.Add("label", k+"="+v)
	}
	return args
}
