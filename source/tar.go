package source

import (
	"archive/tar"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	tarBlock = 512
	// maxWindow is the memory one zstd stream may ask for; only --ultra and --long ask for more.
	maxWindow = 32 << 20
)

// tar walks a tar, compressed or not.
func (w *walk) tar(format Format) error {
	stream, closer, err := decompress(w.meter.stream(), format)
	if err != nil {
		return w.meter.blame(err, "")
	}
	defer closer()
	raw := &rawReader{meter: w.meter, r: stream}
	r := tar.NewReader(raw)
	last := ""
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return w.tarEnd(raw)
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // admit says better what is wrong with a name
			return w.meter.blame(behind(err, last), "")
		}
		last = h.Name
		if err := w.tarEntry(h, r); err != nil {
			return err
		}
	}
}

func behind(err error, last string) error {
	if last == "" && errors.Is(err, tar.ErrHeader) {
		return errors.New("it is not a tar")
	}
	return err
}

func (w *walk) tarEntry(h *tar.Header, r io.Reader) error {
	switch h.Typeflag {
	case tar.TypeXGlobalHeader: // git's note of the commit
		return nil
	case tar.TypeLink:
		return refuseEntry(h.Name, errors.New("it is a hard link"))
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	default:
		return refuseEntry(h.Name, errors.New("it is neither a file nor a directory"))
	}
	e, skip, err := w.admit(header{name: h.Name, mode: h.FileInfo().Mode(), size: h.Size})
	if err != nil || skip {
		return err
	}
	return w.visit(e, r)
}

// tarEnd reads what follows the last entry: padding only, and the compression's checksum. A tar ends in zero blocks;
// one without was cut off between two entries.
func (w *walk) tarEnd(raw *rawReader) error {
	marked := raw.zeros >= tarBlock
	raw.ended = true
	if _, err := io.Copy(io.Discard, raw); err != nil {
		return w.meter.blame(err, "")
	}
	if !marked {
		return w.meter.blame(io.ErrUnexpectedEOF, "")
	}
	return nil
}

func decompress(r io.Reader, format Format) (io.Reader, func(), error) {
	switch format {
	case TarGzip:
		z, err := gzip.NewReader(r)
		return z, func() {}, err
	case TarZstd:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow),
			zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return r, func() {}, nil
}
