package docker

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"kontiki/errs"
	"kontiki/fault"
)

func TestServerIsMadeOnceAndHardened(t *testing.T) {
	t.Parallel()
	e := open(t)
	e.release(t, "shop", "r1")
	endpoint := e.ensure(t, "shop")
	c := e.only(t)
	if again := e.ensure(t, "shop"); again != endpoint || e.only(t).ID != c.ID {
		t.Errorf("the second time the server is %s at %s, not %s at %s", e.only(t).ID, again, c.ID, endpoint)
	}
	if !strings.HasPrefix(endpoint, "http://127.0.0.1:") {
		t.Errorf("endpoint is %s", endpoint)
	}
	for k, v := range map[string]string{labelCluster: e.cfg.ClusterID, labelNode: "n1", labelProject: "shop", labelRole: "static",
		labelManaged: "true", labelDeployment: ""} {
		if got, ok := c.Config.Labels[k]; !ok || got != v {
			t.Errorf("label %s is %q, %v", k, got, ok)
		}
	}
	if want := "/kontiki-shop-static-n1-" + strings.ToLower(e.cfg.ClusterID[20:]); c.Name != want {
		t.Errorf("name is %s, want %s", c.Name, want)
	}
	h := c.HostConfig
	if !h.ReadonlyRootfs || h.Privileged || !slices.Equal(h.CapDrop, []string{"ALL"}) || len(h.CapAdd) != 0 ||
		!slices.Contains(h.SecurityOpt, "no-new-privileges:true") || h.Memory != memoryLimit || *h.PidsLimit != pidsLimit ||
		h.NetworkMode.IsHost() || h.PidMode.IsHost() || h.IpcMode.IsHost() || h.UTSMode.IsHost() || len(h.Mounts) != 1 || !h.Mounts[0].ReadOnly {
		t.Errorf("host configuration is %+v", h)
	}
	if r := h.RestartPolicy; r.Name != container.RestartPolicyOnFailure || r.MaximumRetryCount != 3 {
		t.Errorf("restart policy is %+v", r)
	}
	if k := c.Config.Healthcheck; k.Interval != 30*time.Second || k.Timeout != 10*time.Second || k.Retries != 3 ||
		k.StartPeriod != 40*time.Second || !slices.Equal(k.Test, []string{"CMD", "/kontiki", "check"}) {
		t.Errorf("health check is %+v", k)
	}
	rec, err := e.ask("shop", "r1")
	if err != nil || rec.Body.String() != "r1" || rec.Header().Get("Uid") == "0" || rec.Header().Get("Writable") != "" {
		t.Errorf("answered %d %q with %v, %v", rec.Code, rec.Body, rec.Header(), err)
	}
}

func TestWhatHappenedToTheServerIsMended(t *testing.T) {
	t.Parallel()
	e := open(t)
	e.release(t, "shop", "r1")
	for name, harm := range map[string]func(id string) error{
		"killed": func(id string) error { return e.api.ContainerKill(t.Context(), id, "KILL") },
		"removed": func(id string) error {
			return e.api.ContainerRemove(t.Context(), id, container.RemoveOptions{Force: true})
		},
		"stopped":      func(id string) error { return e.api.ContainerStop(t.Context(), id, container.StopOptions{}) },
		"paused":       func(id string) error { return e.api.ContainerPause(t.Context(), id) },
		"renamed":      func(id string) error { return e.api.ContainerRename(t.Context(), id, "renamed-"+id[:12]) },
		"disconnected": func(id string) error { return e.api.NetworkDisconnect(t.Context(), "bridge", id, true) },
		"image gone": func(id string) error {
			if err := e.api.ContainerRemove(t.Context(), id, container.RemoveOptions{Force: true}); err != nil {
				return err
			}
			return e.dropImage(t)
		},
		"folder replaced": func(string) error {
			dir := filepath.Join(e.cfg.DataDir, "static", "shop")
			if err := os.Rename(dir, dir+"-old"); err != nil {
				return err
			}
			e.release(t, "shop", "r1")
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			e.ensure(t, "shop")
			if err := harm(e.only(t).ID); err != nil {
				t.Fatal(err)
			}
			// A name is not what a server is known by; a folder that was replaced lacks its release, which the disk tells.
			if want := name == "renamed" || name == "folder replaced"; e.works(t, "shop") != want {
				t.Errorf("the server is said to work: %v", !want)
			}
			e.ensure(t, "shop")
			if !e.works(t, "shop") || e.works(t, "blog") {
				t.Error("the server is not the one that is said to work")
			}
			if c := e.only(t); !c.State.Running {
				t.Errorf("the server is %s", c.State.Status)
			}
			if rec, err := e.ask("shop", "r1"); err != nil || rec.Body.String() != "r1" {
				t.Errorf("answered %q, %v", rec.Body, err)
			}
		})
	}
}

// works reports whether the engine says that the project's server does.
func (e *Engine) works(t *testing.T, project string) bool {
	t.Helper()
	works, err := e.Working(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return works(project)
}

// dropImage takes the tag of the server's image away.
func (e *Engine) dropImage(t *testing.T) error {
	_, err := e.api.ImageRemove(t.Context(), e.binary.tag(), removeForced)
	if cerrdefs.IsNotFound(err) {
		return nil
	}
	return err
}

func TestAnUnhealthyServerIsReplaced(t *testing.T) {
	t.Parallel()
	e := open(t, func(c *Config) { c.Check = []string{"fail"} })
	quick := health
	quick.Interval, quick.Retries, quick.StartPeriod = 50, 1, 0
	if _, err := e.EnsureServer(t.Context(), "shop", quick); err != nil {
		t.Fatal(err)
	}
	id := e.only(t).ID
	eventually(t, "reported as unhealthy", func() bool {
		infos, err := e.Servers(t.Context())
		return err == nil && len(infos) == 1 && infos[0].Unhealthy
	})
	if e.works(t, "shop") {
		t.Error("an unhealthy server is said to work")
	}
	if _, err := e.EnsureServer(t.Context(), "shop", quick); err != nil {
		t.Fatal(err)
	}
	if e.only(t).ID == id {
		t.Error("the unhealthy server is still there")
	}
}

func TestAnotherConfigurationReplacesTheServerWithoutAGap(t *testing.T) {
	t.Parallel()
	e := open(t)
	e.release(t, "shop", "r1")
	e.ensure(t, "shop")
	old := e.only(t)
	asked, stop := make(chan struct{}), make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for {
				if rec, err := e.ask("shop", "r1"); err != nil || rec.Body.String() != "r1" {
					t.Errorf("answered %d %q, %v", rec.Code, rec.Body, err)
				}
				select {
				case asked <- struct{}{}:
				case <-stop:
					return
				}
			}
		})
	}
	done := make(chan error, 1)
	go func() {
		other := health
		other.Interval *= 2
		_, err := e.EnsureServer(t.Context(), "shop", other)
		done <- err
	}()
	for running := true; running; {
		select {
		case <-asked:
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			running = false
		}
	}
	for range 20 {
		<-asked
	}
	close(stop)
	clients.Wait()
	if now := e.only(t); now.ID == old.ID || now.Name != old.Name || now.Config.Healthcheck.Interval != time.Minute {
		t.Errorf("the server is %s %s with %+v", now.ID, now.Name, now.Config.Healthcheck)
	}
}

func TestASuccessorThatDoesNotComeUpLeavesTheOldServer(t *testing.T) {
	t.Parallel()
	e := open(t)
	e.release(t, "shop", "r1")
	e.ensure(t, "shop")
	old := e.only(t)
	e.cfg.Command = []string{"crash"}
	_, err := e.EnsureServer(t.Context(), "shop", health)
	if errs.CodeOf(err) != errs.DockerError || !strings.Contains(err.Error(), "boom: cannot go on") || !strings.Contains(err.Error(), "exit code 3") {
		t.Errorf("error is %v", err)
	}
	if c := e.only(t); c.ID != old.ID || !c.State.Running {
		t.Errorf("the server is %s, %s", c.ID, c.State.Status)
	}
	if rec, err := e.ask("shop", "r1"); err != nil || rec.Body.String() != "r1" {
		t.Errorf("answered %q, %v", rec.Body, err)
	}
	e.cfg.Command = []string{"serve"}
	e.ensure(t, "shop")
	if c := e.only(t); c.ID != old.ID {
		t.Error("the server was replaced for nothing")
	}
}

func TestAServerThatDoesNotListen(t *testing.T) {
	t.Parallel()
	e := open(t, func(c *Config) { c.Command = []string{"idle"} })
	e.limits.ready = time.Second
	if _, err := e.EnsureServer(t.Context(), "shop", health); errs.CodeOf(err) != errs.DockerTimeout || !strings.Contains(err.Error(), "docker logs") {
		t.Errorf("error is %v", err)
	}
}

func TestCutOffAtEveryPointAndRunAgain(t *testing.T) {
	e := open(t)
	e.release(t, "shop", "r1")
	other := health
	other.Interval *= 2
	t.Cleanup(func() { _ = fault.Arm("", "") })
	for _, point := range []string{"docker.image.before", "docker.image.after", "docker.create.before", "docker.create.after",
		"docker.start.before", "docker.start.after", "docker.rename.before", "docker.rename.after", "docker.remove.before", "docker.remove.after"} {
		t.Run(point, func(t *testing.T) {
			if err := e.RemoveServer(t.Context(), "shop"); err != nil {
				t.Fatal(err)
			}
			switch {
			case strings.HasPrefix(point, "docker.image"):
				if err := e.dropImage(t); err != nil {
					t.Fatal(err)
				}
			case strings.HasPrefix(point, "docker.rename") || strings.HasPrefix(point, "docker.remove"):
				if _, err := e.EnsureServer(t.Context(), "shop", other); err != nil {
					t.Fatal(err)
				}
			}
			dir := t.TempDir()
			if err := fault.Arm(point+"=error", dir); err != nil {
				t.Fatal(err)
			}
			if _, err := e.EnsureServer(t.Context(), "shop", health); !errors.Is(err, fault.ErrInjected) {
				t.Errorf("cut off: %v", err)
			}
			if _, err := os.Stat(filepath.Join(dir, point+".fired")); err != nil {
				t.Errorf("the fault did not fire: %v", err)
			}
			e.ensure(t, "shop")
			if rec, err := e.ask("shop", "r1"); err != nil || rec.Body.String() != "r1" || e.only(t).Config.Healthcheck.Interval != 30*time.Second {
				t.Errorf("answered %q, %v", rec.Body, err)
			}
		})
	}
}

func TestAForeignContainerIsNeverTouched(t *testing.T) {
	t.Parallel()
	e := open(t)
	if err := e.ensureImage(t.Context()); err != nil {
		t.Fatal(err)
	}
	name := e.name("shop")
	foreign, err := e.api.ContainerCreate(t.Context(), &container.Config{Image: e.binary.tag(), Entrypoint: []string{"/kontiki", "idle"},
		Labels: map[string]string{labelCluster: e.cfg.ClusterID, labelProject: "shop", labelNode: "n2", labelRole: "static", labelManaged: "true"}},
		nil, nil, nil, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.api.ContainerRemove(context.Background(), foreign.ID, container.RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	})
	before, err := e.inspect(t.Context(), foreign.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.EnsureServer(t.Context(), "shop", health); errs.CodeOf(err) != errs.Conflict || !strings.Contains(err.Error(), name) {
		t.Errorf("ensure: %v", err)
	}
	if err := e.RemoveServer(t.Context(), "shop"); err != nil {
		t.Errorf("remove: %v", err)
	}
	after, err := e.inspect(t.Context(), foreign.ID)
	if err != nil || after.Name != before.Name || after.State.Status != before.State.Status {
		t.Errorf("the foreign container is %+v, %v", after.State, err)
	}
	if len(e.servers(t)) != 0 {
		t.Error("it is listed as ours")
	}
}

func TestManyEnsureAtOnceMakeOneServer(t *testing.T) {
	t.Parallel()
	e := open(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := e.EnsureServer(t.Context(), "shop", health); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	e.only(t)
}

func TestRemoveServer(t *testing.T) {
	t.Parallel()
	e := open(t)
	e.release(t, "shop", "r1")
	e.ensure(t, "shop")
	e.ensure(t, "blog")
	for range 2 { // not there is success
		if err := e.RemoveServer(t.Context(), "shop"); err != nil {
			t.Fatal(err)
		}
	}
	if c := e.only(t); c.Config.Labels[labelProject] != "blog" {
		t.Errorf("left is %v", c.Config.Labels)
	}
	rec, err := e.ask("shop", "r1")
	if errs.CodeOf(err) != errs.Unavailable || rec.Body.Len() != 0 || len(rec.Header()) != 0 {
		t.Errorf("answered %d %q %v, %v", rec.Code, rec.Body, rec.Header(), err)
	}
}

func TestServeRelease(t *testing.T) {
	t.Parallel()
	e := open(t)
	e.release(t, "shop", "r1")
	e.release(t, "shop", "r2")
	e.ensure(t, "shop")
	for _, id := range []string{"r1", "r2"} {
		rec, err := e.ask("shop", id)
		if err != nil || rec.Body.String() != id || !slices.Equal(rec.Header()[headerRelease], []string{id}) {
			t.Errorf("answered %q with %v, %v", rec.Body, rec.Header(), err)
		}
		if got := rec.Header().Get("Asked"); got != "shop.example /a//b%2Fc?x=1;y=%zz 10.1.2.3" {
			t.Errorf("the server was asked %q", got)
		}
	}
	if rec, err := e.ask("shop", "r3"); err == nil || rec.Body.Len() != 0 || len(rec.Header()) != 0 {
		t.Errorf("a release that is not there: %d %q, %v", rec.Code, rec.Body, err)
	}
	if _, err := e.ask("../x", "r1"); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("a bad name: %v", err)
	}
}

func TestServeReleaseFindsAServerThatMoved(t *testing.T) {
	t.Parallel()
	e := open(t)
	e.release(t, "shop", "r1")
	e.ensure(t, "shop")
	e.limits.again = 0
	grace := 0
	if err := e.api.ContainerRestart(t.Context(), e.only(t).ID, container.StopOptions{Timeout: &grace}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "answered after a restart by hand", func() bool {
		rec, err := e.ask("shop", "r1")
		return err == nil && rec.Code == http.StatusOK && rec.Body.String() == "r1"
	})
	fresh, err := Open(t.Context(), e.cfg) // a node that has just started
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	if rec, err := fresh.ask("shop", "r1"); err != nil || rec.Body.String() != "r1" {
		t.Errorf("answered %q, %v", rec.Body, err)
	}
}
