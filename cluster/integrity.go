package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"syscall"

	"github.com/hashicorp/raft"

	"kontiki/errs"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// bolt checks nothing but its two meta pages: a flipped bit elsewhere comes back as data. So every entry carries, in
// the Extensions that Raft leaves to layers like this one, a checksum over what it is.
func logSum(l *raft.Log) uint32 {
	var head [17]byte
	binary.BigEndian.PutUint64(head[:], l.Index)
	binary.BigEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	return crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, l.Data)
}

// sealLog gives a copy with the checksum: Raft goes on using the original.
func sealLog(l *raft.Log) *raft.Log {
	sealed := *l
	sealed.Extensions = binary.BigEndian.AppendUint32(nil, logSum(l))
	return &sealed
}

func checkLog(index uint64, l *raft.Log) error {
	if l.Index != index {
		return fmt.Errorf("it says it is entry %d", l.Index)
	}
	if len(l.Extensions) != 4 {
		return errors.New("it has no checksum")
	}
	if got, want := logSum(l), binary.BigEndian.Uint32(l.Extensions); got != want {
		return fmt.Errorf("its checksum is %08x, not %08x", got, want)
	}
	return nil
}

// sealValue and openValue do the same for the term and the vote; the key counts, so that none stands for another.
func sealValue(key, value []byte) []byte {
	sealed := append(make([]byte, 0, len(value)+4), value...)
	return binary.BigEndian.AppendUint32(sealed, valueSum(key, value))
}

func openValue(key, sealed []byte) ([]byte, error) {
	if len(sealed) < 4 {
		return nil, fmt.Errorf("the value of %q is cut short", key)
	}
	value := sealed[:len(sealed)-4]
	if valueSum(key, value) != binary.BigEndian.Uint32(sealed[len(value):]) {
		return nil, fmt.Errorf("the value of %q fails its checksum", key)
	}
	return value, nil
}

func valueSum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// corrupt says that stored state is not what was written. The node must not go on with less than it has promised the
// others, so the way back is to join as a new one.
func corrupt(path string, why error) *errs.Error {
	return errs.New(errs.StateCorrupt, "the Raft state in %s is damaged: %w", path, why).WithHint("%s", recovery)
}

const recovery = "move the data directory away, run `kontiki peers remove <id of this node>` on another node, " +
	"and join again under a new ID"

// storeCode tells a full disk from the rest.
func storeCode(err error) errs.Code {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return errs.DiskFull
	}
	return errs.Unavailable
}

// checkLogs reads the whole log and gives its first and last index; both are 0 when it is empty. Up to the given
// snapshot there may be gaps, where a follower was brought up to date by one.
func (g *guard) checkLogs(snapshot uint64) (first, last uint64, err error) {
	first, err = g.FirstIndex()
	if err != nil {
		return 0, 0, err
	}
	last, err = g.LastIndex()
	if err != nil || last == 0 {
		return 0, 0, err
	}
	var term uint64
	for i := first; i <= last; i++ {
		var l raft.Log
		err := g.GetLog(i, &l)
		if errors.Is(err, raft.ErrLogNotFound) && i <= snapshot {
			continue
		}
		if err != nil {
			return 0, 0, fmt.Errorf("entry %d: %w", i, err)
		}
		if l.Term < term {
			return 0, 0, fmt.Errorf("entry %d is of term %d, the one before it of %d", i, l.Term, term)
		}
		term = l.Term
	}
	return first, last, nil
}
