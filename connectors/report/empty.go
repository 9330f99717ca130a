package report

import (
	"context"
	"fmt"

	"github.com/nimriz/partners/connectors/clickhouse"
)

// emptiness explains why a page has no rows.
type emptiness struct {
	Clicks, Tokened, Withheld, Off  uint64
	Received, Unattributed, Refused uint64
	Waiting                         uint64
	Reasons                         []counted
	OtherClicks                     uint64 // outside of the selected days
	WithheldReasons, RefusedReasons []counted
}

type counted struct {
	Name string `ch:"name"`
	N    uint64 `ch:"n"`
	Text string `ch:"-"`
}

// emptiness counts what there is around a page without rows.
func (r *Reader) emptiness(ctx context.Context, workspace string, f Filter) (*emptiness, error) {
	e := &emptiness{}
	clicks := &condition{}
	clicks.and("workspace_id = {w:String}", "w", workspace)
	f.who(clicks)
	f.days(clicks, "toDate(clicked_at)")
	var of []struct {
		Clicks   uint64 `ch:"clicks"`
		Tokened  uint64 `ch:"tokened"`
		Withheld uint64 `ch:"withheld"`
		Off      uint64 `ch:"off"`
	}
	err := r.conn.Select(ctx, &of, "SELECT count() AS clicks, countIf(token_status = 'appended') AS tokened, "+
		"countIf(token_status = 'withheld') AS withheld, countIf(token_status = 'off') AS off FROM clicks WHERE "+
		clicks.text(), clicks.args...)
	if err == nil {
		e.Clicks, e.Tokened, e.Withheld, e.Off = of[0].Clicks, of[0].Tokened, of[0].Withheld, of[0].Off
		err = r.conn.Select(ctx, &e.WithheldReasons,
			"SELECT toString(token_reason) AS name, count() AS n FROM clicks WHERE token_status != 'appended' AND "+
				clicks.text()+" GROUP BY name ORDER BY n DESC, name LIMIT 6", clicks.args...)
	}
	events := f.events(workspace)
	if err == nil {
		err = r.conn.Select(ctx, &e.Reasons, "SELECT toString(reason) AS name, count() AS n FROM outcomes WHERE "+
			"verdict = 'unattributed' AND "+events.text()+" GROUP BY name ORDER BY n DESC, name LIMIT 8",
			events.args...)
	}
	days := &condition{}
	days.and("workspace_id = {w:String}", "w", workspace)
	f.days(days, "toDate(received_at)")
	if err == nil {
		err = r.conn.Select(ctx, &e.RefusedReasons,
			"SELECT toString(code) AS name, count() AS n FROM rejections WHERE "+days.text()+
				" GROUP BY name ORDER BY n DESC, name LIMIT 6", days.args...)
	}
	var other []counted
	if err == nil {
		err = r.conn.Select(ctx, &other, "SELECT '' AS name, count() AS n FROM clicks WHERE workspace_id = {w:String}",
			clickhouse.Named("w", workspace))
	}
	if err == nil {
		err = r.Conservation(ctx, workspace, Filter{From: f.From, To: f.To}, 10_000, func(c *Conservation) error {
			e.Received += c.Received
			e.Waiting += c.Waiting
			e.Unattributed += c.Unattributed
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("counting what is around: %w", err)
	}
	if other[0].N > e.Clicks {
		e.OtherClicks = other[0].N - e.Clicks
	}
	for i := range e.Reasons {
		e.Reasons[i].Text = ReasonWords(e.Reasons[i].Name)
	}
	for i := range e.WithheldReasons {
		e.WithheldReasons[i].Text = TokenWords(e.WithheldReasons[i].Name)
	}
	for _, x := range e.RefusedReasons {
		e.Refused += x.N
	}
	return e, nil
}
