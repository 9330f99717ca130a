// Package repolint tests the repository itself: which package may import which, which
// one package may import a library, how wide lines and how short names may be, and what
// no file may contain. It has no code but tests:
//
//	go test ./cmd/internal/repolint
//
// A failure names the file and the fix. Each rule is a function of the files that were
// read (repo), so that a second test can apply it to a small bad sample and see it
// fail. Files are parsed, not built: build tags hide nothing, and a package that does
// not compile is checked all the same.
package repolint
