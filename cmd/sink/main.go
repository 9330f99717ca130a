// Command sink copies the topics into ClickHouse, effectively once.
package main

import (
	"context"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/cmd/internal/components"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/sink"
	"github.com/nimriz/partners/pipeline/kafka"
)

func main() {
	d := daemon.New("sink", "copies the topics into ClickHouse, effectively once")
	part, k, wh := components.Sink{Config: sink.DefaultConfig()}, kafka.DefaultConfig(), clickhouse.Config{}
	d.Kafka(&k)
	daemon.ClickHouseFlag(d.Flags, &wh)
	d.Flags.DurationVar(&part.Config.Linger, "linger", part.Config.Linger,
		"shortest time between two inserts of one partition while it keeps up")
	d.Flags.DurationVar(&part.Config.SessionTimeout, "session-timeout", part.Config.SessionTimeout,
		"after how long without a heartbeat the group gives this sink's partitions away; also how long a killed "+
			"sink waits when it starts again")
	d.Main(func(ctx context.Context) (err error) {
		if err := daemon.Usage(k.Validate(), part.Config.Validate(), wh.Validate()); err != nil {
			return err
		}
		if part.Codec, err = d.Codec(); err != nil {
			return err
		}
		part.ClickHouse, part.Kafka, part.Log, part.Registry = wh, k, d.Log, d.Registry
		return d.Serve(ctx, &part)
	})
}
