package clickhouse

// RetryableCodes lets tests compare the error codes with a server's names for them.
func RetryableCodes() map[int32]string { return retryableCodes() }
