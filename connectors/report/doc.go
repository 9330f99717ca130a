// Package report answers questions from the warehouse: why an event counts as it does, and what stands behind a partner's claims.
//
// # Promises
//
//   - Every query names its workspace; nothing of another workspace is in any answer.
//   - Nothing is written, and nothing is decided anew: verdicts are those of the rows. What stands is recomputed from the rows, as the rules define it.
//   - Two currencies are never added, and money is exact.
//   - An answer stays small in memory: bounds are named below, and an answer that met one says so.
//
// # Shape
//
// Reader.Why collects every record with an event id: where it is in the log, its verdict or what it waits for, the click as it was frozen, and the chain from the
// root down with what stands of each event. Dispute judges claims in batches, one Finding for each; Claims reads them from a CSV file. Words for people
// are in words.go; who shows them lays them out.
//
// An event "stands" with amount − Σ of what stands of its reversed children in the same currency, never below nothing; without an amount it is one unit. What a claim
// nets is the sum of effect × amount over its events and all below them, as an export sums them.
package report
