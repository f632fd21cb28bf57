package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"kontiki/errs"
)

// lone gives the configuration of a group of one on disk, on a network of its own.
func lone(t *testing.T, dir string) Config {
	t.Helper()
	n := NewMemoryNetwork().Node("n1")
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	quick := Timing{Heartbeat: 20 * time.Millisecond, Election: 20 * time.Millisecond, Lease: 20 * time.Millisecond}
	return Config{NodeID: "n1", ClusterID: "c1", Dir: dir, Machine: newRecord(), Network: n, Timing: quick}
}

// fill makes a group of one in dir with a number of commands and gives their IDs.
func fill(t *testing.T, cfg Config, commands int) []string {
	t.Helper()
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Kill()
	if !cfg.Expect {
		if err := c.Bootstrap("n1"); err != nil {
			t.Fatal(err)
		}
	}
	var ids []string
	for i := range commands {
		id := fmt.Sprintf("%s-%d-%s", filepath.Base(cfg.Dir), i, strings.Repeat("x", i%90))
		if _, err := c.Propose(soon(t), command(id)); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// reopen opens dir and gives the commands the state machine has once it leads.
func reopen(t *testing.T, dir string) ([]string, error) {
	t.Helper()
	cfg := lone(t, dir)
	cfg.Expect = true
	c, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	defer c.Kill()
	index, err := c.ReadIndex(soon(t))
	if err == nil {
		err = cfg.Machine.Wait(soon(t), index)
	}
	return cfg.Machine.(*record).ids(), err
}

func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func change(t *testing.T, path string, edit func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, edit(data), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestOpensWhatItWrote(t *testing.T) {
	dir := t.TempDir()
	want := fill(t, lone(t, dir), 300)
	for range 2 {
		got, err := reopen(t, dir)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%d of %d commands: %v", len(got), len(want), err)
		}
	}
}

// stored gives everything Raft would read from dir, or why it must not.
func stored(dir string) (logs []raft.Log, values []string, err error) {
	cfg, err := Config{NodeID: "n1", Dir: dir, Expect: true, Machine: newRecord(), Network: &MemoryNode{}}.withDefaults()
	if err != nil {
		return nil, nil, err
	}
	c := newCluster(cfg)
	if err := c.openStores(); err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, c.store.close()) }()
	first, _ := c.store.FirstIndex()
	last, _ := c.store.LastIndex()
	for i := first; i <= last; i++ {
		var l raft.Log
		if err := c.store.GetLog(i, &l); err != nil {
			return nil, nil, err
		}
		l.AppendedAt = time.Time{} // for people only
		logs = append(logs, l)
	}
	for _, key := range boltKeys {
		v, err := c.store.Get([]byte(key))
		if err != nil {
			return nil, nil, err
		}
		values = append(values, string(v))
	}
	return logs, values, nil
}

// A flipped bit is noticed, or it is one that means nothing: it never takes away or changes what was stored.
func TestFlippedBits(t *testing.T) {
	dir := t.TempDir()
	fill(t, lone(t, dir), 120)
	logs, values, err := stored(dir)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, boltFile))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, boltFile)
	witness, err := os.ReadFile(filepath.Join(dir, witnessFile))
	if err != nil {
		t.Fatal(err)
	}
	refused, harmless := 0, 0
	for _, at := range interestingBytes(whole) {
		broken := slices.Clone(whole)
		broken[at] ^= 1 << (at % 8)
		// Opening writes: each flip begins with the same files.
		if err := errors.Join(os.WriteFile(path, broken, 0o600), os.WriteFile(filepath.Join(dir, witnessFile), witness, 0o600)); err != nil {
			t.Fatal(err)
		}
		gotLogs, gotValues, err := stored(dir)
		switch {
		case errs.CodeOf(err) == errs.StateCorrupt:
			refused++
		case err == nil && reflect.DeepEqual(gotLogs, logs) && slices.Equal(gotValues, values):
			harmless++
		default:
			t.Errorf("bit %d of byte %d (page %d, offset %d): %d of %d entries, values %q, %v",
				at%8, at, at/4096, at%4096, len(gotLogs), len(logs), gotValues, err)
		}
	}
	if refused < 300 {
		t.Errorf("only %d flips were noticed", refused)
	}
	t.Logf("%d flips refused, %d without meaning", refused, harmless)
}

// interestingBytes gives the offsets of all bytes of the meta pages and of every page's header and first elements,
// and of some others.
func interestingBytes(file []byte) (at []int) {
	for page := 0; page*4096 < len(file); page++ {
		if len(bytes.Trim(file[page*4096:(page+1)*4096], "\x00")) == 0 {
			continue
		}
		for i := 0; i < 4096; i++ {
			if i < 64 || i < 80 && page < 2 || i%251 == page%251 {
				at = append(at, page*4096+i)
			}
		}
	}
	return at
}

func TestDamagedFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	fill(t, lone(t, dir), 200)
	for name, edit := range map[string]func(dir string){
		"half the file": func(d string) { change(t, filepath.Join(d, boltFile), func(b []byte) []byte { return b[:40000] }) },
		"one page":      func(d string) { change(t, filepath.Join(d, boltFile), func(b []byte) []byte { return b[:4096] }) },
		"a few bytes":   func(d string) { change(t, filepath.Join(d, boltFile), func(b []byte) []byte { return b[:50] }) },
		"emptied":       func(d string) { change(t, filepath.Join(d, boltFile), func([]byte) []byte { return nil }) },
		"not bolt at all": func(d string) {
			change(t, filepath.Join(d, boltFile), func(b []byte) []byte { return bytes.Repeat([]byte("x"), 9000) })
		},
		"removed":          func(d string) { remove(t, filepath.Join(d, boltFile)) },
		"everything gone":  func(d string) { remove(t, filepath.Join(d, boltFile)); remove(t, filepath.Join(d, witnessFile)) },
		"an older copy":    func(d string) { older(t, d) },
		"the witness torn": func(d string) { change(t, filepath.Join(d, witnessFile), func(b []byte) []byte { return b[:20] }) },
		"the witness other": func(d string) {
			change(t, filepath.Join(d, witnessFile), func(b []byte) []byte { b[3] ^= 1; return b })
		},
	} {
		broken := copyDir(t, dir)
		edit(broken)
		_, err := reopen(t, broken)
		if errs.CodeOf(err) != errs.StateCorrupt || !strings.Contains(err.Error(), broken) || !strings.Contains(err.Error(), "kontiki peers remove") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// older puts a log in place that is whole, but ends before the one it replaces.
func older(t *testing.T, dir string) {
	t.Helper()
	other := t.TempDir()
	fill(t, lone(t, other), 3)
	data, err := os.ReadFile(filepath.Join(other, boltFile))
	if err != nil {
		t.Fatal(err)
	}
	change(t, filepath.Join(dir, boltFile), func([]byte) []byte { return data })
}

func TestANewNodeMayBeEmpty(t *testing.T) {
	cfg := lone(t, t.TempDir())
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if other, err := Open(cfg); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("a second process: %v, %v", other, err)
	}
	c.Kill()
	cfg.Expect = true
	if _, err := Open(cfg); errs.CodeOf(err) != errs.StateCorrupt {
		t.Errorf("expecting state: %v", err)
	}
}

// snapshots gives the directories of the snapshots below dir, the oldest first.
func snapshotDirs(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, e := range entries {
		dirs = append(dirs, filepath.Join(dir, "snapshots", e.Name()))
	}
	return dirs
}

// withSnapshots fills dir, taking a snapshot after each of two halves.
func withSnapshots(t *testing.T, dir string, trailing uint64) (want []string) {
	t.Helper()
	for half := range 2 {
		cfg := lone(t, dir)
		cfg.Expect, cfg.Snapshots.Trailing = half > 0, trailing
		c, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if half == 0 {
			if err := c.Bootstrap("n1"); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 60 {
			id := fmt.Sprintf("%d-%d", half, i)
			if _, err := c.Propose(soon(t), command(id)); err != nil {
				t.Fatal(err)
			}
			want = append(want, id)
		}
		if err := c.Snapshot(soon(t)); err != nil {
			t.Fatal(err)
		}
		if s := c.Stats(); s.SnapshotIndex == 0 || s.WriteLongest == 0 || s.State != "Leader" {
			t.Errorf("%+v", s)
		}
		c.Kill()
	}
	return want
}

func TestTornSnapshot(t *testing.T) {
	for name, c := range map[string]struct {
		trailing uint64
		spoil    func(dirs []string) []string // gives the snapshots to damage
		whole    bool
	}{
		"newest, the log reaches back":   {500, func(d []string) []string { return d[len(d)-1:] }, true},
		"newest, the log does not":       {1, func(d []string) []string { return d[len(d)-1:] }, false},
		"all, the log has everything":    {500, func(d []string) []string { return d }, true},
		"all, the log begins after them": {1, func(d []string) []string { return d }, false},
		"none":                           {1, func([]string) []string { return nil }, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			want := withSnapshots(t, dir, c.trailing)
			for _, torn := range c.spoil(snapshotDirs(t, dir)) {
				change(t, filepath.Join(torn, "state.bin"), func(b []byte) []byte { return b[:len(b)/2] })
			}
			got, err := reopen(t, dir)
			if c.whole && (err != nil || !slices.Equal(got, want)) {
				t.Errorf("%d of %d commands: %v", len(got), len(want), err)
			}
			if !c.whole && errs.CodeOf(err) != errs.StateCorrupt {
				t.Errorf("opened: %v", err)
			}
		})
	}
}

func TestChecksumsCoverEverything(t *testing.T) {
	l := raft.Log{Index: 7, Term: 3, Type: raft.LogCommand, Data: []byte("data")}
	sealed := sealLog(&l)
	if err := checkLog(7, sealed); err != nil || l.Extensions != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*raft.Log){
		"index": func(l *raft.Log) { l.Index++ }, "term": func(l *raft.Log) { l.Term++ },
		"type": func(l *raft.Log) { l.Type = raft.LogNoop }, "data": func(l *raft.Log) { l.Data = []byte("date") },
		"sum": func(l *raft.Log) { l.Extensions = nil },
	} {
		other := *sealed
		edit(&other)
		if checkLog(other.Index, &other) == nil {
			t.Errorf("another %s passes", name)
		}
	}
	value := sealValue([]byte("CurrentTerm"), []byte("12345678"))
	if _, err := openValue([]byte("LastVoteTerm"), value); err == nil {
		t.Error("a value passes under another key")
	}
	if _, err := openValue([]byte("CurrentTerm"), value[:3]); err == nil {
		t.Error("a cut value passes")
	}
}

func TestCheckBoltNeedsAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	if err := checkBolt(path, false); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkBolt(path, false); err != nil {
		t.Errorf("the process died right after making the file: %v", err)
	}
	if err := checkBolt(t.TempDir(), false); err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, io.EOF) {
		t.Errorf("a folder: %v", err)
	}
}
