package cmd

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// project makes a project's folder with two releases, the second current.
func project(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "hello")
	for _, release := range []string{"r1", "r2"} {
		dir := filepath.Join(root, "releases", release)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte("release "+release), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("releases/r2", filepath.Join(root, "current")); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestServeServesTheCurrentReleaseAndThePinnedOne(t *testing.T) {
	for _, trust := range []bool{false, true} {
		t.Run(fmt.Sprintf("trust %v", trust), func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			read, write := io.Pipe()
			ended := make(chan int, 1)
			go func() {
				args := []string{"serve", "--root", project(t), "--listen", "127.0.0.1:0", fmt.Sprintf("--trust-release-header=%v", trust)}
				ended <- Execute(ctx, args, Env{In: strings.NewReader(""), Out: io.Discard, Err: write, Getenv: func(string) string { return "" }})
			}()
			said := bufio.NewReader(read)
			line, err := said.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = io.Copy(io.Discard, said) }() // ends with the process's output
			defer write.Close()
			url := "http://" + strings.TrimSpace(line[strings.LastIndex(line, " ")+1:]) + "/"
			want := map[string]string{"": "release r2", "r1": "release r2"}
			if trust {
				want["r1"] = "release r1"
			}
			for pinned, body := range want {
				if got := get(t, url, pinned); got != body {
					t.Errorf("asked for %q it gives %q, want %q", pinned, got, body)
				}
			}
			if code, _, problems := kontiki(t, "serve", "--check", url); code != ExitOK {
				t.Errorf("check of a well server: exit code %d: %s", code, problems)
			}
			if code, _, _ := kontiki(t, "serve", "--check", url+"nothing"); code != ExitFailed {
				t.Errorf("check of a page that is not there: exit code %d", code)
			}
			cancel()
			if code := <-ended; code != ExitInterrupted {
				t.Errorf("it ended with exit code %d", code)
			}
			if code, _, _ := kontiki(t, "serve", "--check", url); code != ExitFailed {
				t.Errorf("check of a server that is gone: exit code %d", code)
			}
		})
	}
}

func get(t *testing.T, url, release string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if release != "" {
		req.Header.Set("Kontiki-Release", release)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(res.Body); err != nil {
		t.Fatal(err)
	}
	return body.String()
}
