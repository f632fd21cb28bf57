package httpapi_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"kontiki/client"
	"kontiki/errs"
	"kontiki/httpapi"
)

// slowStore stores an upload only when it is let.
type slowStore struct {
	httpapi.Uploads
	began, let chan struct{}
}

func (s *slowStore) StoreUpload(ctx context.Context, body io.Reader, limit int64) (httpapi.Stored, error) {
	s.began <- struct{}{}
	select {
	case <-s.let:
	case <-ctx.Done():
		return httpapi.Stored{}, ctx.Err()
	}
	return s.Uploads.StoreUpload(ctx, body, limit)
}

// An upload over the limit of those at a time is refused before its body is read, and taken when another one is over.
func TestUploadsAtATimeAreLimited(t *testing.T) {
	slow := &slowStore{began: make(chan struct{}, 2), let: make(chan struct{})}
	g := newGroup(t, 1, func(d *httpapi.Deps) { slow.Uploads, d.Uploads, d.MaxUploads = d.Uploads, slow, 1 })
	first := make(chan error, 1)
	c := g.client(t, adminSecret, 0)
	go func() {
		_, err := c.Deploy(t.Context(), client.DeployRequest{Project: "hello", Archive: bytes.NewReader(archive("one")),
			ContentType: "application/gzip", How: client.How{Create: true}})
		first <- err
	}()
	select {
	case <-slow.began:
	case err := <-first:
		t.Fatal("the first upload ended at once:", err)
	}
	const path = "/api/projects/hello/deployments?create=true"
	res := g.ask(t, "POST", path, string(archive("two")), "Content-Type", "application/gzip")
	if e := refusal(t, res); e.Code != errs.TooMany || e.Hint == "" || res.StatusCode != 429 || res.Header.Get("Retry-After") == "" {
		t.Errorf("%d %+v", res.StatusCode, e)
	}
	close(slow.let)
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	if res := g.ask(t, "POST", path, string(archive("two")), "Content-Type", "application/gzip"); res.StatusCode != 201 {
		t.Errorf("afterwards: %s %s", res.Status, read(t, res))
	}
}

// What does not begin as an archive does is refused before any of it is stored; what does arrives whole.
func TestRefusedUploadLeavesNothingBehind(t *testing.T) {
	g := newGroup(t, 1, nil)
	r := g.replicas[0]
	const path = "/api/projects/hello/deployments?create=true"
	for _, content := range []string{"hello", strings.Repeat("hello", 100_000)} {
		if e := refusal(t, g.ask(t, "POST", path, content, "Content-Type", "application/gzip")); e.Code != errs.InvalidArchive {
			t.Errorf("%+v", e)
		}
	}
	if len(r.blobs) != 0 {
		t.Errorf("%d refused uploads are stored", len(r.blobs))
	}
	for _, size := range []int{0, httpapi.HeadSize - 3, httpapi.HeadSize - 2, httpapi.HeadSize - 1, 300_000} {
		text := strings.Repeat("x", size)
		res := g.ask(t, "POST", path, string(archive(text)), "Content-Type", "application/gzip")
		if res.StatusCode != 201 {
			t.Errorf("of %d bytes: %s", size, read(t, res))
		}
		var stored bool
		r.blobsMu.Lock()
		for _, b := range r.blobs {
			stored = stored || bytes.Equal(b, archive(text))
		}
		r.blobsMu.Unlock()
		if !stored {
			t.Errorf("an upload of %d bytes did not arrive as it was", size+2)
		}
	}
}
