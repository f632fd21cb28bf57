// Package sim runs whole clusters in one process, in virtual time: the real Raft group, state machines, leader's loop and
// agents, over a network and disks in memory. A seed gives a schedule of writes and of faults: nodes are killed and come
// back, cut off, partitioned, cut in one direction. When all is healed the design's invariants must hold.
//
// Each simulation is a testing/synctest bubble: minutes of it pass in a fraction of a second. The schedule depends on the
// seed alone; what goroutines make of it may differ a little from run to run.
//
//	go test ./sim                                   40 seeds, 15 with -race
//	go test ./sim -seeds 200                        more of them
//	go test ./sim -run TestSimulation -seed 17      one, and with -trace what its nodes log
package sim

import (
	"flag"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

var (
	seeds = flag.Int("seeds", defaultSeeds, "how many seeds to simulate, from 1 on")
	seed  = flag.Uint64("seed", 0, "the one seed to simulate instead")
	trace = flag.Bool("trace", false, "let the nodes log to standard error")
)

func TestSimulation(t *testing.T) {
	list := []uint64{*seed}
	if *seed == 0 {
		list = nil
		for i := range *seeds {
			list = append(list, uint64(i+1))
		}
	}
	total := newTally()
	t.Run("seeds", func(t *testing.T) {
		for _, seed := range list {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				simulate(t, seed, total)
			})
		}
	})
	t.Log(total)
	if len(list) >= 15 {
		total.wantAll(t)
	}
}

func simulate(t *testing.T, seed uint64, total *tally) {
	defer func() {
		if t.Failed() {
			t.Logf("replay it with: go test ./sim -run TestSimulation -seed %d", seed)
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, 3)
		defer w.stop()
		w.form()
		clients := w.startClients()
		w.misbehave(time.Minute)
		w.recover()
		clients.finish()
		w.settle()
		w.prove()
		w.check(clients)
		total.add(w.tally)
	})
}
