package source

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/flate"
)

// directoryEntry is how many bytes of a zip's directory one entry may take on average.
const directoryEntry = 512

// zip walks a zip in the order of its directory.
func (w *walk) zip() error {
	dir := &directoryReader{meter: w.meter, left: 4<<20 + directoryEntry*int64(w.limits.Files)}
	r, err := zip.NewReader(dir, w.meter.packed)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // admit says better what is wrong with a name
		return w.meter.blame(err, "")
	}
	dir.open = true
	r.RegisterDecompressor(zip.Deflate, flate.NewReader)
	for _, f := range r.File {
		if err := w.zipEntry(f); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) zipEntry(f *zip.File) error {
	size := int64(min(f.UncompressedSize64, 1<<62)) // as declared; the decoder holds the content to it
	e, skip, err := w.admit(header{name: f.Name, mode: f.Mode(), size: size})
	switch {
	case err != nil || skip:
		return err
	case f.Flags&1 != 0:
		return refuseEntry(f.Name, errors.New("it is encrypted"))
	case e.Dir && size != 0:
		return refuseEntry(f.Name, errors.New("it is a directory with content"))
	case f.Method != zip.Store && f.Method != zip.Deflate:
		return refuseEntry(f.Name, fmt.Errorf("its compression method %d is not known", f.Method))
	case e.Dir:
		return w.visit(e, nil)
	}
	body, err := f.Open()
	if err != nil {
		return w.meter.blame(err, f.Name)
	}
	err = w.visit(e, body)
	if cerr := body.Close(); err == nil && cerr != nil {
		err = w.meter.blame(cerr, f.Name)
	}
	return err
}

// directoryReader bounds what is read of a zip's directory: all of it is held in memory before the first entry can be
// looked at.
type directoryReader struct {
	meter *meter
	left  int64
	open  bool // the directory is read, the entries may be
}

func (d *directoryReader) ReadAt(p []byte, off int64) (int, error) {
	if !d.open {
		if d.left -= int64(len(p)); d.left < 0 {
			return 0, refuse("the archive has too large a directory for %d entries", d.meter.limits.Files)
		}
	}
	return d.meter.ReadAt(p, off)
}

var _ io.ReaderAt = (*directoryReader)(nil)
