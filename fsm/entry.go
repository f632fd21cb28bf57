package fsm

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"kontiki/errs"
)

// One Raft log entry carries a group of commands:
//
//	'K' | version | crc32c of the rest, 4 bytes big endian | count | count × (length | command)
//
// with count and length as unsigned varints and each command as EncodeCommand gives it. bolt does not notice flipped
// bits; the checksum does, on every node, before a command is looked at.
const (
	entryMagic   = 'K'
	entryVersion = 1
	entryHeader  = 6
	// MaxEntryCommands is the most commands one entry may carry.
	MaxEntryCommands = 4096
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// EncodeEntry frames encoded commands as one log entry.
func EncodeEntry(commands [][]byte) []byte {
	size := entryHeader + binary.MaxVarintLen64
	for _, c := range commands {
		size += len(c) + binary.MaxVarintLen32
	}
	b := make([]byte, entryHeader, size)
	b[0], b[1] = entryMagic, entryVersion
	b = binary.AppendUvarint(b, uint64(len(commands)))
	for _, c := range commands {
		b = binary.AppendUvarint(b, uint64(len(c)))
		b = append(b, c...)
	}
	binary.BigEndian.PutUint32(b[2:], crc32.Checksum(b[entryHeader:], castagnoli))
	return b
}

// DecodeEntry gives the encoded commands of an entry, which alias it, or a BadCommand error.
func DecodeEntry(entry []byte) ([][]byte, error) {
	if err := CheckEntry(entry); err != nil {
		return nil, err
	}
	rest := entry[entryHeader:]
	count, n := binary.Uvarint(rest)
	if n <= 0 || count > MaxEntryCommands {
		return nil, errs.New(errs.BadCommand, "log entry names an impossible number of commands")
	}
	rest = rest[n:]
	commands := make([][]byte, 0, count)
	for i := range count {
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) {
			return nil, errs.New(errs.BadCommand, "command %d of %d in a log entry is cut short", i+1, count)
		}
		commands = append(commands, rest[n:n+int(size)])
		rest = rest[n+int(size):]
	}
	if len(rest) != 0 {
		return nil, errs.New(errs.BadCommand, "%d bytes too many in a log entry", len(rest))
	}
	return commands, nil
}

// CheckEntry verifies an entry's header and checksum; the error is of code BadCommand.
func CheckEntry(entry []byte) error {
	if len(entry) < entryHeader || entry[0] != entryMagic {
		return errs.New(errs.BadCommand, "log entry of %d bytes is not one of Kontiki's", len(entry))
	}
	if entry[1] != entryVersion {
		return errs.New(errs.UnknownCommand, "log entry has format %d, this version reads %d", entry[1], entryVersion)
	}
	if got, want := crc32.Checksum(entry[entryHeader:], castagnoli), binary.BigEndian.Uint32(entry[2:]); got != want {
		return errs.New(errs.BadCommand, "log entry fails its checksum: %s", fmt.Sprintf("%08x, not %08x", got, want))
	}
	return nil
}
