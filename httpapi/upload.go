package httpapi

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"time"

	"kontiki/errs"
	"kontiki/fsm"
)

// archiveTypes are the media types read as archives; what it is indeed is told by the content.
var archiveTypes = []string{"application/gzip", "application/x-gzip", "application/x-tar", "application/tar", "application/x-gtar",
	"application/zstd", "application/x-zstd", "application/zip", "application/x-zip-compressed", "application/octet-stream"}

// uploadPause is how long the content of an upload may pause, and how long its answer may take.
const (
	uploadPause  = 30 * time.Second
	uploadAnswer = 5 * time.Minute
)

func (s *server) deploy(c *call) error {
	in, err := c.deployment()
	if err != nil {
		return err
	}
	if _, err := c.idempotencyKey(); err != nil {
		return err
	}
	media, err := s.checkUpload(c.Request)
	if err != nil {
		return err
	}
	if !in.Create {
		if err := s.mustExist(c, in.Project); err != nil {
			return err
		}
	}
	defer s.uploads.Add(-1)
	if s.uploads.Add(1) > int64(s.MaxUploads) {
		return errs.New(errs.TooMany, "%d uploads are under way on this node", s.MaxUploads).WithHint("ask another node, or try again")
	}
	defer c.extend(time.Time{}, time.Time{}) // the connection may serve other requests
	stored, err := s.store(c, media)
	if err != nil {
		return err
	}
	format, err := s.Uploads.DetectFormat(c.Request.Context(), stored.Digest, media)
	if err != nil {
		return err
	}
	in.ID, in.Nodes = fsm.NewID(), stored.Nodes
	in.Source.Digest, in.Source.Size, in.Source.Format = stored.Digest, stored.Size, format
	result, err := s.propose(c, in, stored.Digest)
	if err != nil {
		return err
	}
	var made fsm.DeploymentCreated
	if err := result.Decode(&made); err != nil {
		return errs.New(errs.Internal, "read the deployment's number: %w", err)
	}
	c.Writer.Header().Set("Location", "/api/deployments/"+url.PathEscape(made.ID))
	return s.deploymentNow(c, http.StatusCreated, made.ID)
}

// deployment reads what the query says of the deployment.
func (c *call) deployment() (fsm.DeploymentCreate, error) {
	in := fsm.DeploymentCreate{Project: c.Param("project"), Source: fsm.Source{Type: fsm.SourceUpload, Label: c.query["label"]}, Spec: fsm.DefaultSpec()}
	if err := checkName("project", "project", in.Project); err != nil {
		return in, err
	}
	if len(in.Source.Label) > 200 {
		return in, errs.New(errs.Invalid, "the label has %d bytes", len(in.Source.Label)).WithField("label").WithHint("keep it to 200")
	}
	var err error
	if in.Create, err = c.query.flag("create"); err != nil {
		return in, err
	}
	if in.Spec.Replicas, err = c.replicas(); err != nil {
		return in, err
	}
	h := &in.Spec.Health
	if path, ok := c.query["health_path"]; ok {
		h.Path = path
	}
	if h.Interval, err = c.query.duration("health_interval", h.Interval); err != nil {
		return in, err
	}
	if h.Timeout, err = c.query.duration("health_timeout", h.Timeout); err != nil {
		return in, err
	}
	if h.StartPeriod, err = c.query.duration("health_start_period", h.StartPeriod); err != nil {
		return in, err
	}
	if h.Retries, err = c.query.number("health_retries", h.Retries, 1, 100); err != nil {
		return in, err
	}
	return in, in.Spec.Validate()
}

// checkUpload refuses what need not be read: another type, nothing, or too much. It gives the media type.
func (s *server) checkUpload(r *http.Request) (string, error) {
	header := r.Header.Get("Content-Type")
	media, _, err := mime.ParseMediaType(header)
	if err != nil || !slices.Contains(archiveTypes, media) {
		return "", errs.New(errs.UnsupportedType, "the Content-Type %q is not read here", clip(header)).WithField("Content-Type").
			WithHint("send the archive itself, as application/gzip, application/x-tar, application/zstd, application/zip or application/octet-stream")
	}
	if r.ContentLength == 0 {
		return "", errs.New(errs.InvalidArchive, "the upload is empty").WithHint("send a tar, tar.gz, tar.zst or zip archive")
	}
	if r.ContentLength > s.MaxUpload {
		return "", s.overLimit()
	}
	return media, nil
}

func (s *server) overLimit() error {
	return errs.New(errs.TooLarge, "the upload is over the limit of %d bytes", s.MaxUpload).
		WithHint("send less, or raise the limit in the nodes' configuration")
}

// mustExist refuses an upload for a project that is not there, before the upload is read. This node may not know the
// project yet: in doubt the leader is asked how far the log is.
func (s *server) mustExist(c *call, project string) error {
	if s.Replica.State().Project(project) != nil {
		return nil
	}
	if err := s.catchUp(c); err != nil {
		return err
	}
	if s.Replica.State().Project(project) == nil {
		return noProject(project)
	}
	return nil
}

// store reads the upload into the cluster, once its beginning passes for an archive's: what is refused by that leaves
// nothing behind on any node. What is wrong with the request's body is said in place of what the store made of it.
func (s *server) store(c *call, media string) (Stored, error) {
	body := &uploadBody{call: c, from: c.Request.Body, limit: s.MaxUpload, over: s.overLimit}
	head := make([]byte, HeadSize)
	n, _ := io.ReadFull(body, head) // body remembers its error; a short upload is none
	if body.err != nil {
		return Stored{}, body.err
	}
	if err := s.Uploads.CheckHead(head[:n], media); err != nil {
		return Stored{}, err
	}
	stored, err := s.Uploads.StoreUpload(c.Request.Context(), io.MultiReader(bytes.NewReader(head[:n]), body), s.MaxUpload)
	c.extend(time.Time{}, time.Now().Add(uploadAnswer))
	if body.err != nil {
		return Stored{}, body.err
	}
	if err != nil {
		return Stored{}, err
	}
	return stored, nil
}

// uploadBody is the body of an upload: it may take long, but not pause, and not go over the limit.
type uploadBody struct {
	call     *call
	from     io.Reader
	n, limit int64
	over     func() error
	extended time.Time
	ended    bool  // from then on net/http reads the connection by itself, and a deadline would end the request
	err      error // what was wrong with it
}

// Read implements io.Reader.
func (b *uploadBody) Read(p []byte) (int, error) {
	switch {
	case b.err != nil:
		return 0, b.err
	case b.ended:
		return 0, io.EOF
	}
	if now := time.Now(); now.Sub(b.extended) > time.Second {
		b.extended = now
		b.call.extend(now.Add(uploadPause), now.Add(uploadAnswer))
	}
	n, err := b.from.Read(p)
	b.n += int64(n)
	b.ended = errors.Is(err, io.EOF)
	switch {
	case b.n > b.limit:
		b.err = b.over()
		return 0, b.err
	case err != nil && !b.ended:
		b.err = brokenBody(b.call.Request, b.n, err)
		return n, b.err
	case b.ended && b.n == 0:
		b.err = errs.New(errs.InvalidArchive, "the upload is empty").WithHint("send a tar, tar.gz, tar.zst or zip archive")
		return 0, b.err
	}
	return n, err
}
