package kafka

import "github.com/twmb/franz-go/pkg/kgo"

// Header returns the value of a record's first header with this key. ok is false if
// there is none: some headers have no value, and their presence is the message.
func Header(r *kgo.Record, key string) (value string, ok bool) {
	for i := range r.Headers {
		if r.Headers[i].Key == key {
			return string(r.Headers[i].Value), true
		}
	}
	return "", false
}
