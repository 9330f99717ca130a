package export

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/schemas/event"
)

// Config is one export.
type Config struct {
	Filters           // what is exported; an empty Timezone is the workspace's
	Dir     string    // where the files go; "-" writes the CSV to Stdout and no manifest
	Stdout  io.Writer // for a Dir of "-"
	AsOf    *Manifest // of an export that this one repeats; nil: none
	Since   *Manifest // of an export that this one continues; nil: none
	// Provisional marks name and manifest as provisional whether or not the joined
	// watermark has passed the last day.
	Provisional bool
	Raw         bool // leave texts as they came: escape no formula. Parquet always does
	// Format is FormatCSV, also if it is empty, or FormatParquet.
	Format string
	BOM    bool // begin the CSV with a byte order mark, for Excel
	// Progress, if not nil, is called now and then with the rows written so far and the
	// rows that there will be.
	Progress func(rows, of int64)
	Log      *slog.Logger
	Metrics  *Metrics // may be nil

	finalOnly   bool          // fail with ErrWatermarkBehind instead of writing a provisional file
	replicaWait time.Duration // how long to wait for rows that a replica lacks; 0: a minute

	watch *outage.Watch // over ClickHouse, of a schedule
}

// The formats of Config.Format.
const (
	FormatCSV     = "csv"
	FormatParquet = "parquet"
)

var (
	// ErrBusy means that another run writes into the same directory.
	ErrBusy = errors.New("another export is running in this directory")

	// ErrUnknown means that the catalog has no such workspace, partner, program or
	// link. It may come later: the tables of a fresh installation are still filling.
	ErrUnknown = errors.New("the catalog does not have it")

	// ErrRowsMissing means that a table lacks rows which finished batches inserted:
	// this replica is behind, or rows were removed.
	ErrRowsMissing = errors.New("rows are missing")

	// ErrStandingPending means that rows of rules version 1 arrived after the rollup was
	// carried over, so their standing changes are not computed yet. Once they are, -as-of
	// would write other bytes.
	ErrStandingPending = errors.New("standing changes are not computed yet")

	// ErrWatermarkBehind means that an export would be provisional and may not be. Nothing
	// is written.
	ErrWatermarkBehind = errors.New("the joined watermark has not passed the last day")
)

// DefaultVerdicts are exported unless the filters say otherwise.
func DefaultVerdicts() []string {
	return event.Texts([]event.Verdict{event.Attributed, event.Reversed})
}

// Validate reports the first value that cannot be, by its flag. It fills in the
// verdicts: none are the default, "all" are all; and the days of a statement.
func (c *Config) Validate() error {
	if c.Workspace == "" {
		return errors.New("-workspace is required")
	}
	switch c.Format = cmp.Or(c.Format, FormatCSV); {
	case c.Format == FormatParquet && c.Statement != "":
		return errors.New("-format: a statement of account is a CSV")
	case c.Format == FormatParquet && c.BOM:
		return errors.New("-bom: a Parquet file has no byte order mark")
	case c.Format == FormatParquet:
		c.Raw = true
	case c.Format != FormatCSV:
		return fmt.Errorf("-format: %q is neither %s nor %s", c.Format, FormatCSV, FormatParquet)
	}
	if c.Dir == "" {
		return errors.New("-out is required: a directory, or - for standard output")
	}
	if err := c.setStatement(); err != nil {
		return err
	}
	if err := checkDay("-from", c.From); err != nil {
		return err
	}
	if err := checkDay("-to", c.To); err != nil {
		return err
	}
	if c.To < c.From {
		return fmt.Errorf("-to: %s is before -from, %s", c.To, c.From)
	}
	if len(c.Verdict) == 0 {
		c.Verdict = DefaultVerdicts()
	}
	if slices.Equal(c.Verdict, []string{"all"}) {
		c.Verdict = event.Texts(event.Verdicts())
	}
	return cmp.Or(
		checkValues("-type", c.Type, event.Texts(event.Types())),
		checkValues("-verdict", c.Verdict, event.Texts(event.Verdicts())),
		checkValues("-review", c.Review, event.Texts(event.Reviews())),
	)
}

func checkDay(flag, text string) error {
	if _, err := time.Parse(time.DateOnly, text); err != nil {
		return fmt.Errorf("%s: %q is not a day such as 2026-03-14", flag, text)
	}
	return nil
}

func checkValues(flag string, values, known []string) error {
	for _, v := range values {
		if !slices.Contains(known, v) {
			return fmt.Errorf("%s: %q is not one of %s", flag, v, strings.Join(known, ", "))
		}
	}
	return nil
}
