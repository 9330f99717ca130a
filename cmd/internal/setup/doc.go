// Package setup brings topics, catalog and warehouse into the state that this version
// of the program needs. It is what the command ctl does, and what the demo does before
// it starts. Everything here is repeatable: a second call finds nothing to do. Nothing
// here ever deletes.
//
// One rule ties topics and catalog together and is checked from both sides: clicks are
// kept as long as the longest attribution window, or a conversion within its window
// would find its click gone. Topics refuses a click life that the catalog exceeds,
// Catalog refuses a window that the click life of the topics does not cover.
package setup
