// Package ledger tests the reporting views: random histories go through the real
// processor and the real sink, and each view must equal what the oracle computes from
// the whole history at once. The package has no code but tests.
package ledger
