// Package embedded runs a Kafka broker inside this process, for the demo and for tests:
// franz-go's kfake with a data directory.
//
// It is a fake. It keeps its log while its process runs and across a clean stop. A
// crash of its process is a crash of the broker and may lose what was committed:
// exactly-once is not claimed for it.
package embedded

import (
	"fmt"
	"net"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Config says where the broker listens and keeps its log.
type Config struct {
	// Port on 127.0.0.1; 0 picks a free one.
	Port int
	// Listener replaces Port, for a caller that binds its ports before anything
	// connects. The broker closes it.
	Listener net.Listener
	// DataDir keeps the log; created if missing. The heap holds the log if it is empty.
	DataDir string
}

// Broker is a running broker.
type Broker struct{ cluster *kfake.Cluster }

// Start starts a broker. A port that is taken is an error.
func Start(cfg Config) (*Broker, error) {
	if cfg.Listener != nil {
		cfg.Port = cfg.Listener.Addr().(*net.TCPAddr).Port
	}
	opts := []kfake.Opt{kfake.NumBrokers(1), kfake.Ports(cfg.Port), kfake.ClusterID("partners-embedded"),
		kfake.GroupMinSessionTimeout(time.Second),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"})}
	if cfg.Listener != nil {
		opts = append(opts, kfake.ListenFn(func(string, string) (net.Listener, error) { return cfg.Listener, nil }))
	}
	if cfg.DataDir != "" {
		if err := os.MkdirAll(cfg.DataDir, 0o755); err != nil {
			return nil, fmt.Errorf("starting the embedded broker: %w", err)
		}
		opts = append(opts, kfake.DataDir(cfg.DataDir))
	}
	c, err := kfake.NewCluster(opts...)
	if err != nil {
		return nil, fmt.Errorf("starting the embedded broker: %w", err)
	}
	return &Broker{cluster: c}, nil
}

// Addrs returns the broker's addresses, host:port.
func (b *Broker) Addrs() []string { return b.cluster.ListenAddrs() }

// Close stops the broker after writing what it holds.
func (b *Broker) Close() { b.cluster.Close() }
