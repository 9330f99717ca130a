package attribution

// SetMaxEvents lets tests fill a journey.
func (r *Rules) SetMaxEvents(n int) { r.limit = int64(n) }
