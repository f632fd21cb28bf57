//go:build bench

package cluster

import (
	"io"
	"net"
	"net/http"
	"time"

	"kontiki/fsm"
)

// serve answers writes over HTTP with as little as can be between net/http and raft.Apply, for the system benchmarks to
// compare the API with. It gives its address.
func (b *bare) serve() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	h := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			cmd := fsm.Command{ID: fsm.NewID(), Kind: "bench.write", Time: fsm.Now(), Body: body}
			err = b.raft.Apply(cmd.Encode(), time.Minute).Error()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body) // the client is gone when this fails
	}
	go func() { check(http.Serve(l, http.HandlerFunc(h))) }()
	return l.Addr().String()
}
