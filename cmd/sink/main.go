// Command sink copies the topics into ClickHouse, effectively once.
package main

import (
	"context"

	"github.com/nimriz/partners/cmd/internal/components"
	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/sink"
	"github.com/nimriz/partners/pipeline/kafka"
)

func main() {
	d := daemon.New("sink", "copies the topics into ClickHouse, effectively once")
	component := components.Sink{Config: sink.DefaultConfig()}
	k := kafka.DefaultConfig()
	wh := clickhouse.Config{}
	d.Kafka(&k)
	daemon.GroupSuffixFlag(d.Flags, &k)
	daemon.ClickHouseFlag(d.Flags, &wh)
	d.Flags.DurationVar(&component.Config.Linger, "linger", component.Config.Linger,
		"shortest time between two inserts of one partition while it keeps up")
	d.Flags.DurationVar(&component.Config.SessionTimeout, "session-timeout", component.Config.SessionTimeout,
		"after how long without a heartbeat the group gives this sink's partitions away; also how long a killed "+
			"sink waits when it starts again")
	d.Main(func(ctx context.Context) (err error) {
		if err := daemon.Usage(k.Validate(), component.Config.Validate(), wh.Validate()); err != nil {
			return err
		}
		if component.Codec, err = d.Codec(); err != nil {
			return err
		}
		component.ClickHouse = wh
		component.Kafka = k
		component.Log = d.Log
		component.Registry = d.Registry
		return d.Serve(ctx, &component)
	})
}
