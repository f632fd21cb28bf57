// Package testdata holds the site that the demo and the tests deploy. It never changes while a program runs.
package testdata

import (
	"embed"
	"io/fs"
)

//go:generate go run ./gensite site

//go:embed all:site
var files embed.FS

// Site is a small documentation site: about 300 files, 0.7 MB, with index.html at its top.
func Site() fs.FS {
	site, err := fs.Sub(files, "site")
	if err != nil {
		panic(err) // cannot be: "site" is a valid path
	}
	return site
}
