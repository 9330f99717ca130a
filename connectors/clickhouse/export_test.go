package clickhouse

// RetryableCodes lets tests compare the error codes with a server's names for them.
func RetryableCodes() map[int32]string { return retryableCodes() }

// PartsReader is partsReader.
type PartsReader = partsReader

// NewPartsReader returns a reader of parts.
func NewPartsReader(parts ...[]byte) *PartsReader { return &partsReader{parts: parts} }

// Detach is detach.
func (r *partsReader) Detach() { r.detach() }
