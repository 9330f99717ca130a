package kafka

// FollowInstallEvery is FollowInstall with an interval of the test's own.
var FollowInstallEvery = followInstall
