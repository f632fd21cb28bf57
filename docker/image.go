package docker

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"

	"kontiki/errs"
	"kontiki/fault"
)

const (
	repository  = "kontiki/server"
	binaryPath  = "/kontiki" // in the image
	labelBinary = "kontiki.binary"
)

// binary is the program the image holds.
type binary struct {
	path   string
	digest string // hex SHA-256
}

// tag names the image of this binary.
func (b binary) tag() string { return repository + ":" + b.digest[:16] }

// readBinary checks that the file can run in an image that holds nothing else, and takes its digest.
func readBinary(path string) (binary, error) {
	f, err := os.Open(path)
	if err != nil {
		return binary{}, fmt.Errorf("open the server's binary: %w", err)
	}
	defer f.Close()
	exe, err := elf.NewFile(f)
	if err != nil {
		return binary{}, errs.New(errs.Invalid, "the server's binary %s is no Linux program: %w", path, err)
	}
	for _, p := range exe.Progs {
		if p.Type == elf.PT_INTERP {
			return binary{}, errs.New(errs.Invalid, "the server's binary %s needs shared libraries, which its image has not", path).
				WithHint("build kontiki with CGO_ENABLED=0")
		}
	}
	h := sha256.New()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return binary{}, fmt.Errorf("read the server's binary: %w", err)
	}
	if _, err := io.Copy(h, f); err != nil {
		return binary{}, fmt.Errorf("read the server's binary: %w", err)
	}
	return binary{path: path, digest: hex.EncodeToString(h.Sum(nil))}, nil
}

// ensureImage makes the engine have the image of this binary under its tag. An image of that name with other content
// loses the name.
func (e *Engine) ensureImage(ctx context.Context) error {
	if err := acquire(ctx, e.image); err != nil {
		return err
	}
	defer func() { <-e.image }()
	there, err := e.hasImage(ctx)
	if err != nil || there {
		return err
	}
	if err := fault.Point("docker.image.before"); err != nil {
		return err
	}
	err = call(ctx, e.limits.image, "make the server's image "+e.binary.tag(), e.importImage)
	if err != nil {
		return err
	}
	e.cfg.Logger.Info("server image made", "image", e.binary.tag(), "node", e.cfg.NodeID)
	if err := fault.Point("docker.image.after"); err != nil {
		return err
	}
	if there, err = e.hasImage(ctx); err == nil && !there {
		err = errs.New(errs.DockerError, "the engine took the image %s but does not have it", e.binary.tag())
	}
	return err
}

func (e *Engine) hasImage(ctx context.Context) (there bool, err error) {
	err = call(ctx, e.limits.call, "look for the server's image "+e.binary.tag(), func(ctx context.Context) error {
		found, err := e.api.ImageInspect(ctx, e.binary.tag())
		there = err == nil && found.Config != nil && found.Config.Labels[labelBinary] == e.binary.digest
		return err
	})
	if cerrdefs.IsNotFound(err) {
		return false, nil
	}
	return there, err
}

// importImage sends the engine a file system that holds the binary alone.
func (e *Engine) importImage(ctx context.Context) error {
	r, w := io.Pipe()
	packed := make(chan struct{})
	go func() {
		defer close(packed)
		_ = w.CloseWithError(pack(w, e.binary.path)) // of a pipe it always succeeds
	}()
	defer func() { <-packed }()
	defer r.CloseWithError(errors.New("the engine takes no more"))
	answer, err := e.api.ImageImport(ctx, image.ImportSource{Source: r, SourceName: "-"}, e.binary.tag(),
		image.ImportOptions{Message: "kontiki's project server", Changes: []string{"LABEL " + labelBinary + "=" + e.binary.digest}})
	if err != nil {
		return err
	}
	defer answer.Close()
	for lines := json.NewDecoder(answer); ; {
		var line struct {
			Error string `json:"error"`
		}
		switch err := lines.Decode(&line); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the engine's answer: %w", err)
		case line.Error != "":
			return errors.New(line.Error)
		}
	}
}

// pack writes a tar archive with the file as /kontiki.
func pack(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open the server's binary: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("look at the server's binary: %w", err)
	}
	t := tar.NewWriter(w)
	if err := t.WriteHeader(&tar.Header{Name: binaryPath[1:], Mode: 0o755, Size: info.Size(), Typeflag: tar.TypeReg}); err != nil {
		return fmt.Errorf("pack the server's binary: %w", err)
	}
	if _, err := io.Copy(t, f); err != nil {
		return fmt.Errorf("pack the server's binary: %w", err)
	}
	return t.Close()
}
