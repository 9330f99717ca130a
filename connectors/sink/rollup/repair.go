package rollup

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
)

// ErrNoView says that a view that makes the sums is missing. Without it all that it has
// added would look like too much.
var ErrNoView = errors.New("a materialized view is missing")

// Incomplete is a partition of a topic of which rows are gone whose sums are not.
type Incomplete struct {
	Topic     string
	Partition uint32
	// Before is the time, in Unix seconds, before which a sum may count rows that are
	// gone; 0: any may.
	Before int64
	Gone   uint64 // how many rows are gone
}

// RepairedSums is what RepairSums did.
type RepairedSums struct {
	Lines int // that are now the sums of their rows
	// Kept are lines that differ from their rows and stay: what they count too much may
	// be rows that are gone.
	Kept     uint64
	KeptDays []string // the days (UTC) of these lines, in order
	// Excess is how many events and clicks too much the kept lines count even if all rows
	// that are gone are among them: rows of these days were deleted, or sums are wrong.
	Excess uint64
}

// sumsRepairer repairs the sums of Table.
type sumsRepairer struct {
	wh         *clickhouse.Conn
	log        *slog.Logger
	incomplete []Incomplete
	surplus    map[Incomplete]int64    // what kept lines count more than their rows
	afterStep  func(step string) error // an error ends the repair there
}

// RepairSums makes each line of Table the sum of its rows, by adding a row of
// differences. Lines that may count rows which are gone stay as they are, unless nothing
// is left of them; so do those that were carried over. Nothing may insert meanwhile.
//
// It compares month by month and adds day by day, partition by partition: so much is in
// memory. It can be repeated: what it does follows from the tables.
func RepairSums(ctx context.Context, wh *clickhouse.Conn, incomplete []Incomplete, log *slog.Logger,
	afterStep func(step string) error) (out RepairedSums, err error) {
	s := &sumsRepairer{wh: wh, log: log, incomplete: incomplete, surplus: map[Incomplete]int64{},
		afterStep: afterStep}
	if err := s.checkViews(ctx); err != nil {
		return out, fmt.Errorf("repairing the sums: %w", err)
	}
	months, err := s.readMonths(ctx)
	if err != nil {
		return out, fmt.Errorf("repairing the sums: %w", err)
	}
	for i, month := range months {
		log.Info("comparing the sums with their rows", "month", month,
			"step", fmt.Sprintf("%d of %d", i+1, len(months)))
		if err := s.repairMonth(ctx, month, &out); err != nil {
			return out, fmt.Errorf("repairing the sums of %s: %w", month, err)
		}
	}
	for at, surplus := range s.surplus {
		out.Excess += uint64(max(surplus-int64(at.Gone), 0))
	}
	slices.Sort(out.KeptDays)
	out.KeptDays = slices.Compact(out.KeptDays)
	return out, nil
}

// checkViews returns ErrNoView unless both views are there.
func (s *sumsRepairer) checkViews(ctx context.Context) error {
	names := []string{"partner_quarter_hourly_from_clicks", "partner_quarter_hourly_from_outcomes"}
	var found []struct {
		Name string `ch:"name"`
	}
	err := s.wh.Select(ctx, &found, `
		SELECT name
		FROM system.tables
		WHERE database = {database:String} AND engine = 'MaterializedView' AND name IN {names:Array(String)}`,
		clickhouse.Named("database", s.wh.Database()), clickhouse.Named("names", names))
	if err != nil {
		return fmt.Errorf("looking for the views: %w", err)
	}
	for _, f := range found {
		names = slices.DeleteFunc(names, func(name string) bool { return name == f.Name })
	}
	if len(names) > 0 {
		return fmt.Errorf("%w: %s: create it as in schemas/ddl/0006_rollup.sql, then run this command again", ErrNoView,
			strings.Join(names, ", "))
	}
	return nil
}

// readMonths lists the months (YYYYMM) that have sums, or rows.
func (s *sumsRepairer) readMonths(ctx context.Context) (months []string, err error) {
	var found []struct {
		Month string `ch:"month"`
	}
	err = s.wh.Select(ctx, &found, `
		SELECT DISTINCT toString(month) AS month
		FROM
		(
			SELECT DISTINCT toYYYYMM(`+TimeColumn+`) AS month FROM `+Table+`
			UNION ALL SELECT DISTINCT toYYYYMM(clicked_at) AS month FROM clicks
			UNION ALL SELECT DISTINCT toYYYYMM(occurred_at) AS month FROM outcomes WHERE effect != 0
		)
		ORDER BY month`)
	if err != nil {
		return nil, fmt.Errorf("listing the months: %w", err)
	}
	for _, f := range found {
		months = append(months, f.Month)
	}
	return months, nil
}

// isKept is a condition for a line that may count rows which are gone.
func (s *sumsRepairer) isKept() string {
	conditions := []string{"0"}
	for _, i := range s.incomplete { // topics are ours, the rest are numbers
		condition := fmt.Sprintf("src_topic = '%s' AND src_partition = %d", i.Topic, i.Partition)
		if i.Before > 0 {
			condition += fmt.Sprintf(" AND %s < fromUnixTimestamp(%d)", TimeColumn, i.Before)
		}
		conditions = append(conditions, "("+condition+")")
	}
	return "(" + strings.Join(conditions, " OR ") + ")"
}

// repairMonth repairs the lines of a month.
func (s *sumsRepairer) repairMonth(ctx context.Context, month string, out *RepairedSums) error {
	start, err := time.Parse("200601", month)
	if err != nil {
		return err
	}
	inMonth := within(start, start.AddDate(0, 1, 0))
	hasLine := "(" + lineColumns + ") IN (SELECT " + lineColumns + " FROM " + Table + " WHERE " + inMonth + ")"
	isRepaired := "NOT (" + s.isKept() + " AND " + hasLine + ")"
	type differentDay struct {
		Topic     string    `ch:"src_topic"`
		Partition uint32    `ch:"src_partition"`
		Day       time.Time `ch:"day"`
		Lines     uint64    `ch:"n"`
		Surplus   int64     `ch:"surplus"` // of what each row adds 1 to one
	}
	const columns = "toString(src_topic) AS src_topic, src_partition, toDate(" + TimeColumn + ") AS day, " +
		"count() AS n, toInt64(-sum(clicks + leads + sales + refunds + cancellations + reversals)) AS surplus"
	var kept []differentDay
	err = s.wh.GroupDifferences(ctx, &kept, clickhouse.Comparison{
		Table:  Table,
		Within: inMonth + " AND " + s.isKept() + " AND " + hasLine,
	}, columns)
	if err != nil {
		return err
	}
	for _, k := range kept {
		out.Kept += k.Lines
		out.KeptDays = append(out.KeptDays, k.Day.Format(time.DateOnly))
		for _, i := range s.incomplete {
			if i.Topic == k.Topic && i.Partition == k.Partition {
				s.surplus[i] += k.Surplus
			}
		}
	}
	var differ []differentDay
	compare := clickhouse.Comparison{Table: Table, Within: inMonth + " AND " + isRepaired}
	if err := s.wh.GroupDifferences(ctx, &differ, compare, columns); err != nil {
		return err
	}
	for _, d := range differ {
		s.log.Info("computing sums anew", "day", d.Day.Format(time.DateOnly), "topic", d.Topic,
			"partition", d.Partition, "lines", d.Lines)
		day := within(d.Day, d.Day.AddDate(0, 0, 1))
		lines, err := s.addDifferences(ctx, clickhouse.Comparison{
			Table:  Table,
			Within: day + " AND src_topic = {topic:String} AND src_partition = {partition:UInt32} AND " + isRepaired,
			Args:   []any{clickhouse.Named("topic", d.Topic), clickhouse.Named("partition", d.Partition)},
		})
		if err != nil {
			return err
		}
		out.Lines += lines
	}
	return nil
}

// lineColumns are the sorting key of Table.
const lineColumns = "workspace_id, quarter_hour, partner_id, program_id, link_id, currency, exponent, src_topic, " +
	"src_partition"

// within is a condition for lines that rows make, of [from, to).
func within(from, to time.Time) string {
	return fmt.Sprintf("src_topic IN ('clicks', 'outcomes') AND %[1]s >= fromUnixTimestamp(%[2]d) AND "+
		"%[1]s < fromUnixTimestamp(%[3]d)", TimeColumn, from.Unix(), to.Unix())
}

// addDifferences makes lines the sums of their rows and returns their number.
func (s *sumsRepairer) addDifferences(ctx context.Context, compare clickhouse.Comparison) (int, error) {
	differences, err := s.wh.CompareSums(ctx, compare)
	if err != nil || differences.Lines() == 0 {
		return 0, err
	}
	if err := s.wh.InsertDifferences(ctx, differences, "repair-"+rand.Text()); err != nil {
		return 0, err
	}
	if err := s.afterStep("sums-added"); err != nil {
		return 0, err
	}
	left, err := s.wh.CompareSums(ctx, compare)
	if err != nil {
		return 0, err
	}
	if n := left.Lines(); n > 0 {
		return 0, fmt.Errorf("%w: %d lines of %s differ from their rows although the differences were added: does "+
			"something else insert?", ErrDiffers, n, compare.Within)
	}
	return differences.Lines(), nil
}
