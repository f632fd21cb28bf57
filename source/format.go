// Package source takes in what users upload: it packs folders, reads archives safely, and writes down what a site
// consists of.
//
// Walk is the one place where an archive of unknown origin is read. Everything that unpacks goes through it, so a
// name, type, size or ratio that it refuses reaches no disk. What an archive is going to become is a Manifest; a tree
// is right when it is exactly what its manifest names.
//
// The functions keep no state and may be called concurrently; one call reads its file through ReadAt only, so calls
// may share a file.
package source

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"os"

	"kontiki/errs"
)

// Format is how the files of an upload are put together.
type Format string

// The formats.
const (
	Tar     Format = "tar"
	TarGzip Format = "tar.gz"
	TarZstd Format = "tar.zst"
	Zip     Format = "zip"
)

var formatHint = "send a tar, tar.gz, tar.zst or zip archive"

// declared is what a Content-Type says; it decides only where the content itself does not.
var declared = map[string]Format{
	"application/x-tar": Tar, "application/tar": Tar,
	"application/zip": Zip, "application/x-zip-compressed": Zip,
}

// Detect tells the format by a file's first bytes; contentType (may be empty) helps with an archive that starts with
// something else, as a self-extracting zip does. The error is of code InvalidArchive.
func Detect(file *os.File, contentType string) (Format, error) {
	head := make([]byte, 512)
	n, err := file.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read upload: %w", err)
	}
	return DetectHead(head[:n], contentType)
}

// DetectHead is Detect for content of which only the beginning is at hand: its first 512 bytes, or all when it has fewer.
func DetectHead(head []byte, contentType string) (Format, error) {
	n := len(head)
	switch {
	case n == 0:
		return "", errs.New(errs.InvalidArchive, "the upload is empty").WithHint("%s", formatHint)
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return TarGzip, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}) || skippableFrame(head):
		return TarZstd, nil
	case bytes.HasPrefix(head, []byte("PK\x03\x04")), bytes.HasPrefix(head, []byte("PK\x05\x06")):
		return Zip, nil
	case isTarHeader(head):
		return Tar, nil
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err == nil && declared[media] != "" {
		return declared[media], nil
	}
	return "", errs.New(errs.InvalidArchive, "the upload is not an archive Kontiki knows (first bytes % x)", head[:min(n, 8)]).
		WithHint("%s", formatHint)
}

// skippableFrame reports whether a zstd stream starts with a frame of user data, as parallel compressors write.
func skippableFrame(head []byte) bool {
	return len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18})
}

// isTarHeader reports whether a block carries a tar header with a good checksum; old archives have no magic.
func isTarHeader(block []byte) bool {
	if len(block) < 512 || block[0] == 0 {
		return false
	}
	_, err := tar.NewReader(bytes.NewReader(block)).Next()
	// Headers that speak of a further one (long names, PAX) end in EOF here, which is as good.
	return err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
