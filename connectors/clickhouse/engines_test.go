package clickhouse

import "testing"

func TestEngineMatches(t *testing.T) {
	f := func(table, engine string, want bool) {
		t.Helper()
		if engineMatches(table, engine) != want {
			t.Errorf("%s of %s: %v", table, engine, !want)
		}
	}
	f("MergeTree", MergeTree, true)
	f("MergeTree", Replicated, false)
	f("AggregatingMergeTree", Replicated, false)
	f("ReplicatedAggregatingMergeTree", Replicated, true)
	f("ReplicatedMergeTree", MergeTree, false)
	f("SharedMergeTree", MergeTree, true)
	f("SharedAggregatingMergeTree", Replicated, true)
}
