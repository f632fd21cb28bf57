//go:build bench

package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"kontiki/fsm"
	"kontiki/pki"
)

// The benchmarks run three processes: the test binary starts itself with benchEnv set, and such a process is one node,
// which takes orders on its standard input, a line each, and answers each with a line of JSON.
const benchEnv = "KONTIKI_BENCH_NODE"

// benchSpec is what a process is started with.
type benchSpec struct {
	ID, Dir, Addr string
	Bare          bool // hashicorp/raft and bolt as they come
	Burn          bool // no node: a process that keeps a core busy
}

// benchReply is an answer; each order uses some of the fields.
type benchReply struct {
	Addr                    string
	Leader                  string
	Term, Applied           uint64
	Elections               uint64
	Members                 int
	Count                   int
	Seconds                 float64
	P50, P99                time.Duration
	AckedAt                 int64
	Error                   string
	CPU                     time.Duration
	WriteTypical, WriteSlow time.Duration
}

func init() {
	text := os.Getenv(benchEnv)
	if text == "" {
		return
	}
	var spec benchSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		panic(err)
	}
	if spec.Burn {
		burn()
	}
	benchProcess(spec)
	os.Exit(0)
}

// burn keeps a core busy until the parent has gone.
func burn() {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for i := 0; ; i++ {
	}
}

// benchProposer is what is measured.
type benchProposer interface {
	propose(ctx context.Context, cmd fsm.Command) error
	order(verb string, args []string) benchReply
}

func benchProcess(spec benchSpec) {
	var p benchProposer
	if spec.Bare {
		p = openBare(spec)
	} else {
		p = openOurs(spec)
	}
	w := &benchWriters{p: p, id: spec.ID}
	in := bufio.NewScanner(os.Stdin)
	answer := func(r benchReply) {
		b, err := json.Marshal(r)
		check(err)
		fmt.Println("=" + string(b))
	}
	answer(p.order("status", nil))
	for in.Scan() {
		words := strings.Fields(in.Text())
		switch words[0] {
		case "load":
			proposers, _ := strconv.Atoi(words[1])
			ms, _ := strconv.Atoi(words[2])
			answer(w.load(proposers, time.Duration(ms)*time.Millisecond))
		case "write":
			proposers, _ := strconv.Atoi(words[1])
			w.start(proposers)
			answer(benchReply{})
		case "acked":
			after, _ := strconv.ParseInt(words[1], 10, 64)
			answer(w.acked(after))
		case "stop":
			answer(benchReply{Count: w.end()})
		default:
			answer(p.order(words[0], words[1:]))
		}
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench node:", err)
		os.Exit(1)
	}
}

// benchMachine does with a command what any state machine must, and no more: decode it and count.
type benchMachine struct{ record }

func (m *benchMachine) Apply(index, _ uint64, entry []byte) []fsm.Result {
	commands, err := fsm.DecodeEntry(entry)
	check(err)
	results := make([]fsm.Result, len(commands))
	for i, data := range commands {
		_, err := fsm.DecodeCommand(data)
		check(err)
		results[i].Index = index
	}
	m.mu.Lock()
	m.advance(index)
	m.mu.Unlock()
	return results
}

// ours is this package's Cluster.
type ours struct {
	*Cluster
	port *Port
	mu   sync.Mutex
	want []DesiredMember
}

func openOurs(spec benchSpec) *ours {
	bundle, err := pki.Load(filepath.Join(spec.Dir, "tls"))
	check(err)
	port, err := NewPort(PortConfig{Bind: spec.Addr, Bundle: bundle})
	check(err)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	c, err := Open(Config{NodeID: spec.ID, ClusterID: "bench", Dir: filepath.Join(spec.Dir, "raft"),
		Machine: &benchMachine{*newRecord()}, Network: port, Logger: log})
	check(err)
	o := &ours{Cluster: c, port: port}
	go func() { check((&http.Server{Handler: c.Handler()}).Serve(port.HTTP())) }()
	go func() { check(<-c.Failed()) }()
	go func() {
		check(c.Run(context.Background(), func(ctx context.Context, _ uint64) {
			c.ManageMembers(ctx, o.desired, func() <-chan struct{} { return nil })
		}))
	}()
	return o
}

func (o *ours) desired() []DesiredMember {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.want
}

func (o *ours) propose(ctx context.Context, cmd fsm.Command) error {
	_, err := o.Propose(ctx, cmd)
	return err
}

func (o *ours) order(verb string, args []string) benchReply {
	var r benchReply
	switch verb {
	case "servers": // the first makes the group and admits the others
		o.mu.Lock()
		o.want = nil
		for _, a := range args {
			id, addr, _ := strings.Cut(a, "=")
			o.want = append(o.want, DesiredMember{id, addr})
		}
		o.mu.Unlock()
		if len(o.Members()) == 0 {
			check(o.Bootstrap(o.port.Addr()))
		}
	}
	s := o.Stats()
	r.Addr, r.Applied, r.Term, r.Elections = o.port.Addr(), s.AppliedIndex, s.Term, s.Elections
	r.Leader, _, _ = o.Leader()
	r.WriteTypical, r.WriteSlow = s.WriteTypical, s.WriteLongest
	for _, m := range o.Members() {
		if m.Voter {
			r.Members++
		}
	}
	r.CPU = cpuTime()
	return r
}

// bare is hashicorp/raft with raft-boltdb, both at their defaults, over plain TCP.
type bare struct {
	raft *raft.Raft
	addr string
}

// bareMachine does per entry what benchMachine does per command.
type bareMachine struct{ applied atomic.Uint64 }

func (m *bareMachine) Apply(l *raft.Log) any {
	_, err := fsm.DecodeCommand(l.Data)
	check(err)
	m.applied.Store(l.Index)
	return nil
}

func (m *bareMachine) Snapshot() (raft.FSMSnapshot, error) { return snapshot{recordState{}}, nil }
func (m *bareMachine) Restore(r io.ReadCloser) error       { return r.Close() }

func openBare(spec benchSpec) *bare {
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: os.Stderr})
	addr, err := net.ResolveTCPAddr("tcp", "127.0.0.1:0")
	check(err)
	trans, err := raft.NewTCPTransportWithLogger(addr.String(), nil, 3, 10*time.Second, log)
	check(err)
	check(os.MkdirAll(spec.Dir, 0o700))
	store, err := raftboltdb.NewBoltStore(filepath.Join(spec.Dir, "raft.db"))
	check(err)
	snaps, err := raft.NewFileSnapshotStoreWithLogger(spec.Dir, 2, log)
	check(err)
	conf := raft.DefaultConfig()
	conf.LocalID, conf.Logger = raft.ServerID(spec.ID), log
	r, err := raft.NewRaft(conf, &bareMachine{}, store, store, snaps, trans)
	check(err)
	return &bare{r, string(trans.LocalAddr())}
}

func (b *bare) propose(_ context.Context, cmd fsm.Command) error {
	return b.raft.Apply(cmd.Encode(), time.Minute).Error()
}

func (b *bare) order(verb string, args []string) benchReply {
	if verb == "servers" {
		var conf raft.Configuration
		for _, a := range args {
			id, addr, _ := strings.Cut(a, "=")
			conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(addr)})
		}
		check(b.raft.BootstrapCluster(conf).Error())
	}
	if verb == "http" {
		return benchReply{Addr: b.serve()}
	}
	_, leader := b.raft.LeaderWithID()
	return benchReply{Addr: b.addr, Leader: string(leader), Term: b.raft.CurrentTerm(), Applied: b.raft.AppliedIndex(),
		Members: len(b.raft.GetConfiguration().Configuration().Servers)}
}

// benchWriters proposes, for a time or until it is told to stop.
type benchWriters struct {
	p    benchProposer
	id   string
	runs int

	mu     sync.Mutex
	acks   [][2]int64 // begun and acknowledged, Unix nanoseconds
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// benchCommand is 300 bytes when encoded.
func benchCommand(id string) fsm.Command {
	cmd := fsm.Command{ID: id, Kind: "bench.write", Time: 1700000000000, Actor: "node:bench"}
	cmd.Body = make([]byte, 300-len(cmd.Encode())-2)
	return cmd
}

func (w *benchWriters) load(proposers int, long time.Duration) benchReply {
	w.runs++
	ctx, cancel := context.WithTimeout(context.Background(), long)
	defer cancel()
	var mu sync.Mutex
	var all []time.Duration
	var done sync.WaitGroup
	begin := time.Now()
	for n := range proposers {
		done.Go(func() {
			var mine []time.Duration
			for i := 0; ctx.Err() == nil; i++ {
				cmd := benchCommand(fmt.Sprintf("%s-%d-%04d-%08d", w.id, w.runs, n, i))
				start := time.Now()
				check(w.p.propose(context.Background(), cmd))
				mine = append(mine, time.Since(start))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, mine...)
		})
	}
	done.Wait()
	slices.Sort(all)
	return benchReply{Count: len(all), Seconds: time.Since(begin).Seconds(), P50: all[len(all)/2], P99: all[len(all)*99/100]}
}

func (w *benchWriters) start(proposers int) {
	w.runs++
	w.acks = nil
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(context.Background())
	for n := range proposers {
		w.done.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				cmd := benchCommand(fmt.Sprintf("%s-%d-%04d-%08d", w.id, w.runs, n, i))
				begun := time.Now().UnixNano()
				if w.p.propose(context.Background(), cmd) == nil {
					w.mu.Lock()
					w.acks = append(w.acks, [2]int64{begun, time.Now().UnixNano()})
					w.mu.Unlock()
				}
			}
		})
	}
}

// acked waits for the first acknowledgement of a write that was begun after a moment.
func (w *benchWriters) acked(after int64) benchReply {
	for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(time.Millisecond) {
		first := int64(0)
		w.mu.Lock()
		for _, a := range w.acks {
			if a[0] >= after && (first == 0 || a[1] < first) {
				first = a[1]
			}
		}
		w.mu.Unlock()
		if first > 0 {
			return benchReply{AckedAt: first}
		}
	}
	return benchReply{Error: "no write was acknowledged"}
}

func (w *benchWriters) end() int {
	w.cancel()
	w.done.Wait()
	return len(w.acks)
}
