package verify

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// journeyRows are a sorted map.
func TestJourneyRows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := &journeyRows{}
		model := make(map[string]string)
		big := rapid.Bool().Draw(t, "big")
		key := rapid.StringMatching(`[ab]{0,3}`)
		if big { // so that runs are split
			key = rapid.StringMatching(`[a-h]{4}`)
			for range 3 * maxRun {
				k := key.Draw(t, "key")
				model[k] = "v"
				_ = rows.Put([]byte(k), []byte("v"))
			}
		}
		var copied *journeyRows
		var then map[string]string
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			k := key.Draw(t, "key")
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				delete(model, k)
				_ = rows.Put([]byte(k), nil)
			case 1:
				copied, then = rows.clone(), maps.Clone(model)
			default:
				v := rapid.StringMatching(`[xy]?`).Draw(t, "value")
				model[k] = v
				_ = rows.Put([]byte(k), []byte(v))
			}
			compareRows(t, rows, model, k)
		}
		if copied != nil {
			compareRows(t, copied, then, "a")
		}
	})
}

func compareRows(t *rapid.T, rows *journeyRows, model map[string]string, key string) {
	got, err := rows.Get([]byte(key))
	want, ok := model[key]
	if err != nil || ok != (got != nil) || string(got) != want {
		t.Fatalf("Get %q: %q, want %q", key, got, want)
	}
	prefix := key[:min(len(key), 1)]
	var keys, wantKeys []string
	_ = rows.Scan([]byte(prefix), func(k, v []byte) bool {
		if model[string(k)] != string(v) {
			t.Fatalf("Scan: %q is %q, want %q", k, v, model[string(k)])
		}
		keys = append(keys, string(k))
		return true
	})
	for _, k := range slices.Sorted(maps.Keys(model)) {
		if strings.HasPrefix(k, prefix) {
			wantKeys = append(wantKeys, k)
		}
	}
	if !slices.Equal(keys, wantKeys) {
		t.Fatalf("Scan %q: %q, want %q", prefix, keys, wantKeys)
	}
}
