package kafka

import "github.com/twmb/franz-go/pkg/kgo"

// FollowInstallEvery is FollowInstall with an interval of the test's own.
var FollowInstallEvery = followInstall

// TakeLate takes records of topic catalog as the reading before the present one would, if
// it had polled them before it was ended.
func (f *InstallFollower) TakeLate(records ...*kgo.Record) {
	f.mu.Lock()
	late := &catalogReading{number: f.reading - 1, recorded: f.recorded, bad: make(map[string]error)}
	f.mu.Unlock()
	f.take(late, records)
}
