package source

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"kontiki/errs"
)

// Limits bound what an archive may hold.
type Limits struct {
	Files int   // entries, and directories
	Bytes int64 // content of all files together
}

// DefaultLimits are those of a node that is not configured otherwise.
var DefaultLimits = Limits{Files: 20_000, Bytes: 1 << 30}

const (
	maxRatio  = 200      // unpacked bytes for each packed one
	freeRatio = 10 << 20 // unpacked bytes up to which the ratio does not matter
)

// Entry is one file or directory of an archive, as it is to be on a disk.
type Entry struct {
	Name string      // slash-separated, relative, safe to join to a directory
	Dir  bool        //
	Size int64       // bytes
	Mode fs.FileMode // permissions only: 0644 or 0755
}

// Walk reads an archive from its beginning to its end and calls fn for each entry, in the archive's order. What fn does
// not read is read after it, so that checksums are verified: only when Walk returns nil was the archive whole.
//
// An archive that is not safe, sound and within the limits is refused with code InvalidArchive, naming the entry and
// the reason. An error of fn ends the walk and is returned as it is.
func Walk(ctx context.Context, file *os.File, format Format, limits Limits, fn func(Entry, io.Reader) error) error {
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	w := &walk{fn: fn, limits: limits, names: newTree(limits.Files),
		meter: &meter{ctx: ctx, file: file, packed: info.Size(), limits: limits}}
	switch format {
	case Zip:
		err = w.zip()
	case Tar, TarGzip, TarZstd:
		err = w.tar(format)
	default:
		return errs.New(errs.Invalid, "unknown archive format %q", format).WithHint("%s", formatHint)
	}
	if err == nil && w.files == 0 {
		err = refuse("the archive holds no files")
	}
	return err
}

// walk is one reading of an archive.
type walk struct {
	fn      func(Entry, io.Reader) error
	limits  Limits
	names   *tree
	meter   *meter
	entries int
	files   int
	bytes   int64 // declared by the entries so far
}

// header is what tar and zip say of an entry.
type header struct {
	name string
	mode fs.FileMode // with type and special bits
	size int64
}

// admit decides on an entry before its content is touched. skip is set for the archive's own top directory.
func (w *walk) admit(h header) (e Entry, skip bool, err error) {
	if w.entries++; w.entries > w.limits.Files {
		return Entry{}, false, refuse("the archive has more than %d entries", w.limits.Files)
	}
	name, err := cleanName(h.name, h.mode.IsDir())
	if err == nil {
		err = checkMode(h.mode)
	}
	if err != nil || name == "" {
		return Entry{}, name == "", refuseEntry(h.name, err)
	}
	if err := w.names.add(name, h.mode.IsDir()); err != nil {
		return Entry{}, false, refuseEntry(h.name, err)
	}
	if h.mode.IsDir() {
		return Entry{Name: name, Dir: true, Mode: 0o755}, false, nil
	}
	if h.size < 0 || h.size > w.limits.Bytes-w.bytes {
		return Entry{}, false, refuseEntry(h.name, fmt.Errorf("the content is over the limit of %d bytes", w.limits.Bytes))
	}
	w.files++
	w.bytes += h.size
	return Entry{Name: name, Size: h.size, Mode: normalMode(h.mode)}, false, nil
}

func normalMode(mode fs.FileMode) fs.FileMode {
	if mode&0o111 != 0 {
		return 0o755
	}
	return 0o644
}

// checkMode reports why something of this type must not reach a disk, or nil.
func checkMode(mode fs.FileMode) error {
	for _, bad := range []struct {
		bits fs.FileMode
		what string
	}{
		{fs.ModeSymlink, "it is a symbolic link"}, {fs.ModeNamedPipe, "it is a FIFO"}, {fs.ModeDevice, "it is a device"},
		{fs.ModeSocket, "it is a socket"}, {fs.ModeIrregular, "it is neither a file nor a directory"},
		{fs.ModeSetuid, "it is setuid"}, {fs.ModeSetgid, "it is setgid"}, {fs.ModeSticky, "it is sticky"},
	} {
		if mode&bad.bits != 0 {
			return fmt.Errorf("%s", bad.what)
		}
	}
	return nil
}

// visit hands an admitted entry to fn and reads what fn left.
func (w *walk) visit(e Entry, body io.Reader) error {
	if err := w.meter.ctx.Err(); err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	if e.Dir {
		return w.fn(e, strings.NewReader(""))
	}
	content := &contentReader{meter: w.meter, name: e.Name, r: body}
	err := w.fn(e, content)
	if content.err != nil {
		return content.err // the archive's fault, whatever fn made of it
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, content)
	return err
}

// refuse makes the error for an archive as a whole.
func refuse(format string, args ...any) error {
	return errs.New(errs.InvalidArchive, format, args...).WithHint("pack the files again and send them once more")
}

// refuseEntry makes the error for one entry; a nil reason is no error. The name is quoted and cut to be fit to print.
func refuseEntry(name string, reason error) error {
	if reason == nil {
		return nil
	}
	shown := fmt.Sprintf("%+q", name[:min(len(name), 100)])
	if len(name) > 100 {
		shown += "…"
	}
	return errs.New(errs.InvalidArchive, "archive entry %s: %w", shown, reason).WithField(shown).
		WithHint("leave it out or replace it by a plain file, and pack again")
}
