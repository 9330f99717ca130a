package sink

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/schemas/ddl"
)

// The views over rows made by hand: testdata/views, with every expectation computed by
// hand first. `exec` runs a statement, `query` prints an answer.
func TestViews(t *testing.T) {
	datadriven.Walk(t, "testdata/views", func(t *testing.T, path string) {
		dsn := clickhousetest.ForTest(t)
		conn := clickhousetest.OpenMigrated(t, dsn)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "exec":
				for _, statement := range strings.Split(d.Input, ";\n") {
					if err := conn.Exec(t.Context(), strings.TrimSuffix(statement, ";")); err != nil {
						t.Fatalf("%s: %v", d.Pos, err)
					}
				}
				return ""
			case "query":
				return query(t, dsn, strings.TrimSuffix(d.Input, ";"))
			}
			t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
			return ""
		})
	})
}

// query asks over plain HTTP and returns the answer's text, with columns padded.
func query(t *testing.T, dsn, text string) string {
	t.Helper()
	if !strings.HasPrefix(text, "EXPLAIN") {
		text += " FORMAT TabSeparatedWithNames"
	}
	to, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Post(fmt.Sprintf("http://%s/?database=%s", to.Host, strings.TrimPrefix(to.Path, "/")),
		"text/plain", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s %v", text, res.Status, body, err)
	}
	var rows [][]string
	width := map[int]int{}
	for _, line := range strings.Split(strings.TrimSuffix(string(body), "\n"), "\n") {
		row := strings.Split(line, "\t")
		for i, cell := range row {
			if cell == "" {
				row[i] = "''"
			}
			width[i] = max(width[i], len(row[i]))
		}
		rows = append(rows, row)
	}
	var out strings.Builder
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			line += fmt.Sprintf("%-*s  ", width[i], cell)
		}
		out.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return out.String()
}

// The embedded ClickHouse has no access management, so roles are only parsed here, and
// the readers' policy is tried as a condition.
func TestRoles(t *testing.T) {
	dsn := clickhousetest.ForTest(t)
	tried := 0
	for _, statement := range ddl.Roles("partners") {
		query(t, dsn, "EXPLAIN AST "+strings.ReplaceAll(statement, "\n", " "))
		_, policy, ok := strings.Cut(statement, " USING workspace_id IN ")
		if !ok {
			continue
		}
		policy, _, _ = strings.Cut(policy, " TO ")
		tried++
		roles := "['" + ddl.RoleReader + "', '" + ddl.RoleWorkspace + "acme', '" + ddl.RoleWorkspace + "my-shop']"
		got := query(t, dsn, "SELECT workspace_id FROM values('workspace_id String', 'acme', 'my-shop', 'acme2', "+
			"'') WHERE workspace_id IN "+strings.ReplaceAll(policy, "currentRoles()", roles)+" ORDER BY ALL")
		if got != "workspace_id\nacme\nmy-shop\n" {
			t.Errorf("the policy shows %q", got)
		}
		if got := query(t, dsn, "SELECT count() AS n FROM values('workspace_id String', 'acme', '') WHERE "+
			"workspace_id IN "+policy); got != "n\n0\n" {
			t.Errorf("without roles the policy shows %q", got)
		}
	}
	if tried != 13 {
		t.Errorf("%d policies, want 13", tried)
	}
}

// While batches are inserted, as a sink does it, no view of conservation ever takes what
// is under way for a loss: each reads the tables after the Progress that it holds them
// against. Every event here is overdue as soon as a Progress is past it. Finding out how
// far the tables go is slowed down, so that something always arrives meanwhile.
func TestConservationWhileRowsArrive(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("RENAME TABLE tiled_ends TO tiled_ends_at_once")
	r.exec("CREATE VIEW tiled_ends AS WITH (SELECT sleep(0.1)) AS slept SELECT * FROM tiled_ends_at_once " +
		"WHERE slept = 0")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		var err error
		for n := 0; err == nil && ctx.Err() == nil; n++ {
			err = insertEvent(r, n)
		}
		ended <- err
	}()
	polls, seen := 0, 0
	for ; polls < 10 || seen < 20; polls++ {
		for _, view := range []string{"conservation", "workspace_conservation"} {
			var found []struct {
				Difference int64 `ch:"difference"`
			}
			if err := r.wh.Select(t.Context(), &found, "SELECT toInt64(sum(v.difference)) AS difference FROM "+view+
				" AS v"); err != nil {
				t.Fatal(err)
			}
			if found[0].Difference != 0 {
				t.Errorf("poll %d of %s: difference %d", polls, view, found[0].Difference)
			}
		}
		seen = len(r.places("conversions"))
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	t.Logf("%d polls of %d events", polls, seen)
}

// insertEvent inserts the n-th event, its row and the Progress behind both, each with
// its batch, in this order.
func insertEvent(r *rig, n int) error {
	statements := []string{
		"INSERT INTO conversions (workspace_id, src_partition, src_offset, received_at) VALUES ('acme', 0, %[1]d, " +
			"'2026-03-20 10:00:00')",
		"INSERT INTO outcomes (workspace_id, src_partition, src_offset, received_at, verdict, event_partition, " +
			"event_offset) VALUES ('acme', 0, %[1]d, '2026-03-20 10:00:00', 'unattributed', 0, %[1]d)",
		"INSERT INTO progress (src_partition, src_offset, partition, at, conversions_position, outcomes_end, read, " +
			"unattributed, watermark, grace_ms) VALUES (0, %[1]d, 0, '2026-03-21 10:00:00', %[2]d, %[2]d, %[2]d, " +
			"%[2]d, '2026-03-21 09:59:00', 3600000)",
	}
	for i, topic := range []string{"conversions", "outcomes", "progress"} {
		batch := fmt.Sprintf("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES "+
			"('x', '%s', 0, %d, %d, 1)", topic, n, n+1)
		for _, statement := range []string{fmt.Sprintf(statements[i], n, n+1), batch} {
			if err := r.wh.Exec(context.Background(), statement); err != nil {
				return err
			}
		}
	}
	return nil
}
