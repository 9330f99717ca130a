package tablerows

import (
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/schemas/event"
)

// A row has no snapshot only if none of its columns says something: a partner that was
// put into a row without a click is read.
func TestSnapshotWithoutATime(t *testing.T) {
	clickhousetest.Need(t)
	wh := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	if err := wh.Exec(t.Context(), "INSERT INTO outcomes (src_offset, event_id, partner_id) "+
		"VALUES (1, 'without', ''), (2, 'changed', 'prt_1')"); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]*event.Click)
	if err := EachOutcome(t.Context(), wh, "1", nil, func(_ uint32, _ uint64, o *event.Outcome) error {
		got[o.EventID] = o.Click
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got["without"] != nil || got["changed"] == nil || got["changed"].PartnerID != "prt_1" {
		t.Errorf("%+v", got)
	}
}
