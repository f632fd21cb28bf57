package fsm

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"kontiki/errs"
)

// framed gives an entry with the right checksum around any bytes.
func framed(rest []byte) []byte {
	b := []byte{entryMagic, entryVersion, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(b[2:], crc32.Checksum(rest, castagnoli))
	return append(b, rest...)
}

func TestEntryRoundTrip(t *testing.T) {
	for _, commands := range [][][]byte{{}, {{}}, {[]byte("one")}, {[]byte("one"), {}, bytes.Repeat([]byte{7}, 300)}} {
		got, err := DecodeEntry(EncodeEntry(commands))
		if err != nil || len(got) != len(commands) {
			t.Fatalf("%d commands become %d: %v", len(commands), len(got), err)
		}
		for i := range got {
			if !bytes.Equal(got[i], commands[i]) {
				t.Errorf("command %d is %q, was %q", i, got[i], commands[i])
			}
		}
	}
}

func TestEntryRefusals(t *testing.T) {
	whole := EncodeEntry([][]byte{[]byte("one"), []byte("two")})
	other := bytes.Clone(whole)
	other[1] = 2
	for name, c := range map[string]struct {
		entry []byte
		code  errs.Code
	}{
		"nothing":               {nil, errs.BadCommand},
		"a header cut short":    {whole[:5], errs.BadCommand},
		"no magic":              {append([]byte{'X'}, whole[1:]...), errs.BadCommand},
		"a later format":        {other, errs.UnknownCommand},
		"no count":              {framed(nil), errs.BadCommand},
		"an endless count":      {framed(bytes.Repeat([]byte{0xff}, 11)), errs.BadCommand},
		"too many commands":     {framed(binary.AppendUvarint(nil, MaxEntryCommands+1)), errs.BadCommand},
		"commands missing":      {framed([]byte{2, 0}), errs.BadCommand},
		"a command cut short":   {framed([]byte{1, 5, 'a'}), errs.BadCommand},
		"an impossible length":  {framed(append([]byte{1}, binary.AppendUvarint(nil, 1<<63)...)), errs.BadCommand},
		"something left over":   {framed([]byte{1, 1, 'a', 'b'}), errs.BadCommand},
		"a command of no bytes": {framed([]byte{1, 0}), errs.BadCommand},
	} {
		t.Run(name, func(t *testing.T) {
			m := three(t)
			before := m.hash()
			r := m.f.Apply(m.index+1, 1, c.entry)
			if len(r) != 1 || errs.CodeOf(errOf(r[0])) != c.code || m.f.Applied() != m.index+1 {
				t.Errorf("results %+v, applied %d", r, m.f.Applied())
			}
			if m.hash() != before {
				t.Error("the state changed")
			}
			if halted := m.f.Halted() != nil; halted != (c.code == errs.UnknownCommand) {
				t.Errorf("halted: %v", m.f.Halted())
			}
		})
	}
}

// Whichever bit flips on disk, the entry is refused before a command is looked at.
func TestEntryEveryFlippedBitIsNoticed(t *testing.T) {
	m := three(t)
	entry := EncodeEntry([][]byte{m.stamp(ProjectCreate{Name: "blog"}).Encode()})
	for bit := range len(entry) * 8 {
		bad := bytes.Clone(entry)
		bad[bit/8] ^= 1 << (bit % 8)
		if err := CheckEntry(bad); err == nil {
			t.Fatalf("bit %d flipped is not noticed", bit)
		}
	}
	for n := range entry {
		if _, err := DecodeEntry(entry[:n]); err == nil {
			t.Fatalf("an entry cut to %d bytes is not noticed", n)
		}
	}
}
