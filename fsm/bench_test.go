package fsm

import (
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"
)

const benchGroup = 200

// benchEntries gives entries of 200 project updates with bodies of 300 bytes, as node after node proposes them, with
// or without clients' keys. IDs differ from entry to entry.
func benchEntries(n, projects int, request []byte) [][]byte {
	entries := make([][]byte, n)
	s := serial{1 << 20}
	for i := range entries {
		commands := make([][]byte, benchGroup)
		for j := range commands {
			cmd := s.stamp(ProjectUpdate{Name: fmt.Sprint("p", s.n%projects), Metadata: map[string]string{"note": strings.Repeat("x", 260)}})
			cmd.Request = request
			commands[j] = cmd.Encode()
		}
		entries[i] = EncodeEntry(commands)
	}
	return entries
}

func benchMachine(projects int) *machine {
	m := empty(&testing.B{})
	for i := range projects {
		m.ok(ProjectCreate{Name: fmt.Sprint("p", i)})
	}
	return m
}

// cpuTime is what the process has used of all cores: on a busy machine it says more than the clock.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkApply is the cost of one command in a group of 200: decoding, the change, the remembered result and the
// audit record.
func BenchmarkApply(b *testing.B) {
	for _, c := range []struct {
		name     string
		projects int
		request  []byte
	}{{"projects=1", 1, nil}, {"projects=1000", 1000, nil}, {"projects=1000,keyed", 1000, []byte("a digest of a request, 32 bytes.")}} {
		b.Run(c.name, func(b *testing.B) {
			m := benchMachine(c.projects)
			entries := benchEntries(b.N/benchGroup+1, c.projects, c.request)
			b.ReportAllocs()
			b.ResetTimer()
			start := cpuTime(b)
			for i := 0; i*benchGroup < b.N; i++ {
				m.index++
				if r := m.f.Apply(m.index, 1, entries[i]); r[0].Err != nil || r[0].Replayed {
					b.Fatalf("%+v", r[0])
				}
			}
			b.ReportMetric(float64(cpuTime(b)-start)/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkDeploymentCreate is the cost of queueing a deployment when many wait already.
func BenchmarkDeploymentCreate(b *testing.B) {
	for _, waiting := range []int{0, 1000, 5000} {
		b.Run(fmt.Sprint("waiting=", waiting), func(b *testing.B) {
			m := three(b)
			for i := range waiting {
				m.ok(creation(i, fmt.Sprint("p", i)))
			}
			b.ResetTimer()
			for i := range b.N {
				m.ok(creation(5000+i%5000, "p0"))
				b.StopTimer()
				m.ok(ProjectDelete{Name: "p0"})
				b.StartTimer()
			}
		})
	}
}

// BenchmarkSnapshot is the cost of taking a snapshot, which stops Apply, and of writing it, which does not.
func BenchmarkSnapshot(b *testing.B) {
	m := benchMachine(1000)
	for i, e := range benchEntries(50, 1000, nil) {
		m.f.Apply(m.index+uint64(i)+1, 1, e)
	}
	b.Run("take", func(b *testing.B) {
		for b.Loop() {
			m.f.Snapshot()
		}
	})
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			n, err := m.f.Snapshot().WriteTo(io.Discard)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(n)
		}
	})
}
