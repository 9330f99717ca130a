package report

import (
	"math"
	"time"
)

// chart is a drawing of the days: clicks above, what they brought below, each with a
// scale of its own.
type chart struct {
	Width, Height int
	Bars          []bar
	ClickTop      uint64 // the value at the top of the upper scale
	EventTop      uint64
	Base, Zero    int // y of the two zero lines
	Ticks         []tick
}

type bar struct {
	Day                         string
	Label                       string
	X, W                        float64
	Clicks, Leads, Sales, Taken uint64
	ClickY, ClickH              float64
	SaleY, SaleH, LeadY, LeadH  float64
	TakenY, TakenH              float64
	HitX, HitW                  float64
}

type tick struct {
	X    float64
	Text string
}

const (
	chartWidth, chartHeight = 960, 260
	upperTop, upperBase     = 16, 130
	lowerTop, lowerZero     = 152, 216
	lowerBottom             = 236
	maxDays                 = 400
)

// draw lays out a bar for each day from the first to the last of the filter, or of the
// rows.
func draw(rows []*Performance, f Filter) *chart {
	if len(rows) == 0 {
		return nil
	}
	first, _ := time.Parse(time.DateOnly, rows[0].Day)
	last, _ := time.Parse(time.DateOnly, rows[len(rows)-1].Day)
	if !f.From.IsZero() {
		first = f.From
	}
	if !f.To.IsZero() {
		last = f.To
	}
	days := int(last.Sub(first).Hours()/24) + 1
	if days < 1 || days > maxDays {
		first, days = last.AddDate(0, 0, 1-maxDays), maxDays
	}
	byDay := make(map[string]*Performance, len(rows))
	c := &chart{Width: chartWidth, Height: chartHeight, Base: upperBase, Zero: lowerZero, ClickTop: 1, EventTop: 1}
	for _, r := range rows {
		byDay[r.Day] = r
		c.ClickTop = max(c.ClickTop, r.Clicks)
		c.EventTop = max(c.EventTop, r.Sales+r.Leads, r.Refunds+r.Cancellations+r.Reversals)
	}
	c.ClickTop, c.EventTop = round(c.ClickTop), round(c.EventTop)
	const left, right = 44, 8
	step := float64(chartWidth-left-right) / float64(days)
	width := math.Max(1, math.Min(28, step*0.72))
	every := (days + 7) / 8
	for i := range days {
		at := first.AddDate(0, 0, i)
		b := bar{
			Day:   at.Format(time.DateOnly),
			Label: at.Format("2 Jan"),
			X:     left + step*float64(i) + (step-width)/2,
			W:     width,
			HitX:  left + step*float64(i),
			HitW:  step,
		}
		if i%every == 0 {
			c.Ticks = append(c.Ticks, tick{b.HitX + step/2, b.Label})
		}
		if r := byDay[b.Day]; r != nil {
			b.Clicks, b.Leads, b.Sales, b.Taken = r.Clicks, r.Leads, r.Sales, r.Refunds+r.Cancellations+r.Reversals
			up := func(v, top uint64, room float64) float64 {
				if v == 0 {
					return 0
				}
				return math.Max(1.5, room*float64(v)/float64(top))
			}
			b.ClickH = up(b.Clicks, c.ClickTop, upperBase-upperTop)
			b.ClickY = upperBase - b.ClickH
			b.SaleH = up(b.Sales, c.EventTop, lowerZero-lowerTop)
			b.SaleY = lowerZero - b.SaleH
			b.LeadH = up(b.Leads, c.EventTop, lowerZero-lowerTop)
			b.LeadY = b.SaleY - b.LeadH
			b.TakenH = math.Min(up(b.Taken, c.EventTop, lowerZero-lowerTop), lowerBottom-lowerZero)
			b.TakenY = lowerZero
		}
		c.Bars = append(c.Bars, b)
	}
	return c
}

// round is the next of 1, 2, 5 × 10ⁿ.
func round(v uint64) uint64 {
	for scale := uint64(1); ; scale *= 10 {
		for _, m := range []uint64{1, 2, 5} {
			if m*scale >= v {
				return m * scale
			}
		}
	}
}
