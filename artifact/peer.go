package artifact

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"kontiki/errs"
	"kontiki/fault"
)

// blobPath is where a node serves its blobs to other nodes; the digest follows.
const blobPath = "/blobs/"

// maxErrorBody is how many bytes of a peer's error answer are read.
const maxErrorBody = 64 << 10

// answer is the one form of an error between nodes.
type answer struct {
	Error *errs.Error `json:"error"`
}

// Handler serves GET, HEAD and PUT of /blobs/<digest> to other nodes; who may ask is checked before it. A PUT is
// answered 201 when the content is verified and durable here.
func Handler(store *Store) http.Handler { return &handler{store} }

type handler struct{ store *Store }

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	digest, ok := strings.CutPrefix(r.URL.Path, blobPath)
	if !ok {
		writeError(w, errs.New(errs.NotFound, "no such path"))
		return
	}
	switch r.Method {
	case http.MethodHead: // from someone who wants it here or from here: whoever collects old blobs must see that
		if err := h.store.touch(digest); err != nil {
			writeError(w, err)
			return
		}
		h.get(w, r, digest)
	case http.MethodGet:
		h.get(w, r, digest)
	case http.MethodPut:
		h.put(w, r, digest)
	default:
		w.Header().Set("Allow", "GET, HEAD, PUT")
		writeError(w, errs.New(errs.MethodNotAllowed, "method %s is not for blobs", r.Method))
	}
}

func (h *handler) get(w http.ResponseWriter, r *http.Request, digest string) {
	f, err := h.store.Get(digest)
	if err != nil {
		writeError(w, err)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+digest+`"`)
	http.ServeContent(w, r, "", time.Time{}, f)
}

func (h *handler) put(w http.ResponseWriter, r *http.Request, digest string) {
	if _, err := ParseDigest(digest); err != nil {
		writeError(w, err)
		return
	}
	// Not PutExpect: a sender that asked first and sends all the same replaces content that is damaged here.
	ref, err := h.store.put(r.Context(), r.Body, want{digest: digest})
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusCreated, ref)
}

func writeError(w http.ResponseWriter, err error) {
	e := errs.From(err)
	writeJSON(w, errs.Status(e.Code), answer{Error: e})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a peer that hung up learns nothing more
}

// Fetch brings a blob from the node at baseURL to this one. What is here already is not asked for. NotFound: that
// node does not have it; Digest: it sent something else; Unavailable: it could not be reached or broke off.
func (s *Store) Fetch(ctx context.Context, client *http.Client, baseURL, digest string) (Ref, error) {
	if ref, err := s.Stat(digest); err == nil || errs.CodeOf(err) != errs.NotFound {
		return ref, err
	}
	if err := fault.Point("artifact.fetch.before"); err != nil {
		return Ref{}, err
	}
	res, err := call(ctx, client, http.MethodGet, baseURL, digest, nil)
	if err != nil {
		return Ref{}, fmt.Errorf("fetch blob: %w", err)
	}
	defer res.Body.Close()
	ref, err := s.PutExpect(ctx, digest, res.Body)
	if err != nil {
		return Ref{}, fmt.Errorf("fetch blob: %w", err)
	}
	return ref, fault.Point("artifact.fetch.after")
}

// Push brings a blob of this node to the one at baseURL, unless it has it. When Push returns without an error the
// content is verified and durable there.
func (s *Store) Push(ctx context.Context, client *http.Client, baseURL, digest string) error {
	f, err := s.Get(digest)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("push blob: %w", err)
	}
	there, err := has(ctx, client, baseURL, Ref{Digest: digest, Size: info.Size()})
	if err != nil || there {
		return err
	}
	if err := fault.Point("artifact.push.before"); err != nil {
		return err
	}
	res, err := call(ctx, client, http.MethodPut, baseURL, digest, io.NewSectionReader(f, 0, info.Size()))
	if err != nil {
		return fmt.Errorf("push blob: %w", err)
	}
	discard(res)
	return fault.Point("artifact.push.after")
}

// askTime is how long a node may take to say whether it holds a blob: one that was stopped accepts connections and never
// answers.
const askTime = time.Second

// Size asks a node, briefly, how many bytes of a blob it holds. NotFound: it answers that it has none.
func Size(ctx context.Context, client *http.Client, baseURL, digest string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	res, err := call(ctx, client, http.MethodHead, baseURL, digest, nil)
	if err != nil {
		return 0, fmt.Errorf("ask for blob: %w", err)
	}
	discard(res)
	return res.ContentLength, nil
}

// has asks a node whether it holds a blob, whole.
func has(ctx context.Context, client *http.Client, baseURL string, ref Ref) (bool, error) {
	size, err := Size(ctx, client, baseURL, ref.Digest)
	if errs.CodeOf(err) == errs.NotFound {
		return false, nil
	}
	return size == ref.Size, err
}

// call sends one request and turns every answer that is not a success into its error.
func call(ctx context.Context, client *http.Client, method, baseURL, digest string, body *io.SectionReader) (*http.Response, error) {
	var content io.Reader = http.NoBody
	if body != nil {
		content = io.NopCloser(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(baseURL, "/")+blobPath+digest, content)
	if err != nil {
		return nil, errs.New(errs.Invalid, "address of a node: %w", err)
	}
	if body != nil {
		req.ContentLength = body.Size()
	}
	res, err := client.Do(req)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, errs.New(errs.Unavailable, "node %s did not answer: %w", baseURL, err).
			WithHint("check that it runs and can be reached")
	}
	if res.StatusCode == http.StatusOK || res.StatusCode == http.StatusCreated {
		return res, nil
	}
	defer discard(res)
	return nil, answered(res, baseURL)
}

// answered reads a refusal. A HEAD has no body, so its status has to do.
func answered(res *http.Response, baseURL string) error {
	var a answer
	if err := json.NewDecoder(io.LimitReader(res.Body, maxErrorBody)).Decode(&a); err == nil && a.Error != nil {
		return fmt.Errorf("node %s: %w", baseURL, a.Error)
	}
	if res.StatusCode == http.StatusNotFound {
		return errs.New(errs.NotFound, "node %s does not hold the blob", baseURL)
	}
	return errs.New(errs.Unavailable, "node %s answered %s", baseURL, res.Status)
}

// discard reads a short rest, so that the connection can be used again.
func discard(res *http.Response) {
	_, _ = io.CopyN(io.Discard, res.Body, maxErrorBody) // best effort
	_ = res.Body.Close()                                // nothing was written
}
