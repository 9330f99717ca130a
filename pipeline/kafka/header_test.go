package kafka_test

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/nimriz/partners/pipeline/kafka"
)

func TestHeader(t *testing.T) {
	r := &kgo.Record{Headers: []kgo.RecordHeader{
		{Key: "t", Value: []byte("1")},
		{Key: "replay"},
		{Key: "t", Value: []byte("2")},
	}}
	check := func(key, want string, present bool) {
		t.Helper()
		if got, ok := kafka.Header(r, key); got != want || ok != present {
			t.Errorf("%s: %q, %v; want %q, %v", key, got, ok, want, present)
		}
	}
	check("t", "1", true)
	check("replay", "", true)
	check("waited", "", false)
}
