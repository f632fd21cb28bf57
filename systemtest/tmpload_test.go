//go:build bench

package systemtest

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"kontiki/client"
	"kontiki/fsm"
)

func TestTmpLoad(t *testing.T) {
	c := startCluster(t, 3, options{env: func(n *node) []string { return []string{"PPROF=127.0.0.1:1" + n.name[1:] + "999"} }})
	clients := make([]*client.Client, 64)
	for w := range clients {
		order := append(slices.Clone(c.nodes[w%3:]), c.nodes[:w%3]...)
		clients[w] = c.client(t, order...)
	}
	got := rate(t, len(clients), func(w, i int) error {
		_, err := deployToEnd(t, clients[w], fmt.Sprint("p", w), fmt.Sprint("v", w, ".", i))
		return err
	})
	fmt.Println("per second", got, "leader", c.leader(t).name)
	sum := map[string]time.Duration{}
	cnt := map[string]int{}
	n := 0
	for d, err := range client.All(client.List{}, func(l client.List) (p struct{}, err error) { return }) {
		_, _ = d, err
	}
	_ = fsm.Deployment{}
	_ = os.Args
	_, _, _ = sum, cnt, n
}
