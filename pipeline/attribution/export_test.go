package attribution

// SetMaxEvents lets tests fill a journey.
func (r *Rules) SetMaxEvents(n int) { r.maxEvents = int64(n) }
