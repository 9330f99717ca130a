// Package setup brings topics, catalog and warehouse into the state that this version
// of the programs needs. The commands of ctl call it, and the demo calls it before it
// starts. Every call can be repeated: a second one changes nothing. No call deletes
// anything.
//
// One rule connects topics and catalog, and both sides check it: clicks must be kept as
// long as the longest attribution window, or a conversion within its window would not
// find its click. Topics refuses a click life that is shorter than a window of the
// catalog, and Catalog refuses a window that is longer than the topics' click life.
package setup
