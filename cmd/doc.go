// Package cmd is Kontiki's command line: one file per command, each a struct with its flags, a constructor and run.
//
// A command says what will happen, then what happened, then what to do next. What it found goes to standard output
// (with --json as one JSON document, or one per line for streams), what it has to say about its work to standard
// error. Exit codes are listed in exit.go and in `kontiki help exit-codes`.
//
// Concurrency: an app and its commands belong to one goroutine; nothing here is safe for concurrent use unless it says so.
package cmd
