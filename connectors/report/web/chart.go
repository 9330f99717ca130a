package web

import (
	"math"
	"time"

	"github.com/nimriz/partners/connectors/report"
)

// chart is a drawing of the days: clicks above, what they brought below, each with a
// scale of its own. Coordinates are in the units of its view box.
type chart struct {
	Width, Height int    // of the view box
	Right         int    // x where the lines end
	Bars          []bar  // one for each day
	ClickTop      uint64 // the value at the top of the upper scale
	EventTop      uint64 // the value at the top of the lower scale
	Base, Zero    int    // y of the two zero lines
	Ticks         []tick // below the bars
}

// bar is one day.
type bar struct {
	Day    string  // such as 2026-03-14
	Label  string  // such as 14 Mar
	X, W   float64 // of all its rectangles
	Clicks uint64
	Leads  uint64
	Sales  uint64
	Taken  uint64  // events that took something back
	Given  uint64  // events that gave it back; they are not drawn
	ClickY float64 // top of the rectangle
	ClickH float64 // 0: none is drawn
	SaleY  float64
	SaleH  float64
	LeadY  float64
	LeadH  float64
	TakenY float64
	TakenH float64
	HitX   float64 // of the area that shows the numbers
	HitW   float64
}

type tick struct {
	X    float64
	Text string
}

const (
	chartWidth  = 700
	chartNarrow = 340 // on a phone
	chartHeight = 260
	chartLeft   = 44 // room for the scales
	chartRight  = 8
	upperTop    = 16
	upperBase   = 130
	lowerTop    = 152
	lowerZero   = 216
	lowerBottom = 236
	maxDays     = 400
	tickWidth   = 80 // room for a tick's text
)

// drawChart lays out a bar for each day from the first to the last of the filter, or of
// the rows; at most the last maxDays. It returns nil without rows.
func drawChart(rows []*report.Performance, f report.Filter, width int) *chart {
	if len(rows) == 0 {
		return nil
	}
	first, days := chartDays(rows, f)
	c := &chart{
		Width: width, Height: chartHeight, Right: width - chartRight,
		Base: upperBase, Zero: lowerZero, ClickTop: 1, EventTop: 1,
	}
	byDay := make(map[string]*report.Performance, len(rows))
	for _, r := range rows {
		byDay[r.Day] = r
		c.ClickTop = max(c.ClickTop, r.Clicks)
		c.EventTop = max(c.EventTop, r.Sales+r.Leads, r.TakenBack)
	}
	c.ClickTop = roundUp(c.ClickTop)
	c.EventTop = roundUp(c.EventTop)
	step := float64(width-chartLeft-chartRight) / float64(days)
	barWidth := math.Max(0.6, math.Min(28, step*0.72))
	ticks := max(1, (width-chartLeft)/tickWidth)
	tickEvery := (days + ticks - 1) / ticks
	for i := range days {
		at := first.AddDate(0, 0, i)
		b := bar{
			Day:   at.Format(time.DateOnly),
			Label: at.Format("2 Jan"),
			X:     chartLeft + step*float64(i) + (step-barWidth)/2,
			W:     barWidth,
			HitX:  chartLeft + step*float64(i),
			HitW:  step,
		}
		if i%tickEvery == 0 {
			c.Ticks = append(c.Ticks, tick{b.HitX + step/2, b.Label})
		}
		if r := byDay[b.Day]; r != nil {
			b.setCounts(r.Counts, c)
		}
		c.Bars = append(c.Bars, b)
	}
	return c
}

// chartDays are the first day of a chart and how many there are.
func chartDays(rows []*report.Performance, f report.Filter) (first time.Time, days int) {
	first, _ = time.Parse(time.DateOnly, rows[0].Day)
	last, _ := time.Parse(time.DateOnly, rows[len(rows)-1].Day)
	if !f.From.IsZero() {
		first = f.From
	}
	if !f.To.IsZero() {
		last = f.To
	}
	days = int(last.Sub(first).Hours()/24) + 1
	if days < 1 || days > maxDays {
		return last.AddDate(0, 0, 1-maxDays), maxDays
	}
	return first, days
}

// setCounts sets a day's numbers and the rectangles that show them.
func (b *bar) setCounts(n report.Counts, c *chart) {
	b.Clicks = n.Clicks
	b.Leads = n.Leads
	b.Sales = n.Sales
	b.Taken = n.TakenBack
	b.Given = n.GivenBack
	b.ClickH = barHeight(b.Clicks, c.ClickTop, upperBase-upperTop)
	b.ClickY = upperBase - b.ClickH
	b.SaleH = barHeight(b.Sales, c.EventTop, lowerZero-lowerTop)
	b.SaleY = lowerZero - b.SaleH
	b.LeadH = barHeight(b.Leads, c.EventTop, lowerZero-lowerTop)
	b.LeadY = b.SaleY - b.LeadH
	b.TakenH = math.Min(barHeight(b.Taken, c.EventTop, lowerZero-lowerTop), lowerBottom-lowerZero)
	b.TakenY = lowerZero
}

// barHeight scales a value to the room below top. A value that is not 0 can be seen.
func barHeight(v, top uint64, room float64) float64 {
	if v == 0 {
		return 0
	}
	return math.Max(1.5, room*float64(v)/float64(top))
}

// roundUp returns the next of 1, 2, 5 × 10ⁿ.
func roundUp(v uint64) uint64 {
	for scale := uint64(1); ; scale *= 10 {
		for _, m := range []uint64{1, 2, 5} {
			if m*scale >= v {
				return m * scale
			}
		}
	}
}
