// Package ledger is a test of what people read: random histories go through the real
// processor and the real sink, and every reporting view must say what the oracle
// computes from the whole history at once. It has no code but tests.
package ledger
