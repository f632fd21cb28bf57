package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"kontiki/errs"
)

// entryOverhead is how many bytes of headers and padding an entry of a tar may have beside its content.
const entryOverhead = 8 << 10

// meter watches one reading of an archive: the end of its context, errors of the disk, and how much comes out.
type meter struct {
	ctx     context.Context
	file    *os.File
	packed  int64 // bytes of the archive
	limits  Limits
	content int64 // bytes of files given so far
	disk    error // a failure of the disk, which is not the archive's fault
}

// ReadAt reads the archive.
func (m *meter) ReadAt(p []byte, off int64) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.file.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		m.disk = err
	}
	return n, err
}

// stream gives the archive from its beginning.
func (m *meter) stream() io.Reader { return io.NewSectionReader(m, 0, m.packed) }

// expanded is asked after bytes came out of the archive, with the sum so far.
func (m *meter) expanded(sum int64) error {
	if sum > freeRatio && sum/maxRatio > m.packed {
		return refuse("the archive unpacks to more than %d times its %d bytes", maxRatio, m.packed)
	}
	return nil
}

// blame decides whose fault an error is that came out of a decoder: the caller's, the disk's or the archive's.
func (m *meter) blame(err error, name string) error {
	var coded *errs.Error
	switch {
	case m.ctx.Err() != nil:
		return fmt.Errorf("read archive: %w", m.ctx.Err())
	case m.disk != nil:
		return fmt.Errorf("read archive: %w", m.disk)
	case errors.As(err, &coded):
		return coded
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		err = errors.New("the archive is cut short")
	}
	if name == "" {
		return refuse("the archive cannot be read: %w", err)
	}
	return refuseEntry(name, err)
}

// contentReader gives an entry's content and remembers its first error.
type contentReader struct {
	meter *meter
	name  string
	r     io.Reader
	err   error
}

func (c *contentReader) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.r.Read(p)
	c.meter.content += int64(n)
	switch {
	case c.meter.content > c.meter.limits.Bytes:
		c.err = refuse("the archive unpacks to more than %d bytes", c.meter.limits.Bytes)
	case c.meter.expanded(c.meter.content) != nil:
		c.err = c.meter.expanded(c.meter.content)
	case err != nil && err != io.EOF:
		c.err = c.meter.blame(err, c.name)
	}
	if c.err != nil {
		return n, c.err
	}
	return n, err
}

// rawReader counts a decompressed stream and the zero bytes at its end.
type rawReader struct {
	meter *meter
	r     io.Reader
	sum   int64
	zeros int64 // at the end of what was read so far
	ended bool  // the tar is over: only padding may follow
}

func (r *rawReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.sum += int64(n)
	tail := n
	for tail > 0 && p[tail-1] == 0 {
		tail--
	}
	if tail > 0 {
		r.zeros = 0
	}
	r.zeros += int64(n - tail)
	if r.ended && tail > 0 {
		return n, refuse("the archive has data behind its end")
	}
	if over := r.sum - r.meter.limits.Bytes - entryOverhead; over > 0 && over/entryOverhead > int64(r.meter.limits.Files) {
		return n, refuse("the archive unpacks to more than %d bytes", r.meter.limits.Bytes)
	}
	if err := r.meter.expanded(r.sum); err != nil {
		return n, err
	}
	return n, err
}
