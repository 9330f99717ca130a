// Package scenario generates journeys for tests that run a processor, valid and invalid
// ones, early and late, and reads back what the processor wrote, to compare it with the
// oracle.
package scenario
