// Package repolint is a test of the repository itself: which package may import which,
// through which one door a library comes in, and what must be nowhere. It has no code
// but tests:
//
//	go test ./cmd/internal/repolint
//
// A failure names the file and says the fix. Every rule is a function over what was
// read from the tree (repo), so that a second test can hold a tiny bad sample against
// each of them and see it fail. Files are parsed, not built: build tags do not hide
// anything, and a package that does not compile is still judged.
package repolint
