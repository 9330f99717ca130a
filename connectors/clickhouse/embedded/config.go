package embedded

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// Config locates the library, its cache and the data.
type Config struct {
	// Library is the path of a libchdb.so. If it is empty, Prepare fetches the pinned
	// one into CacheDir.
	Library string
	// CacheDir keeps the fetched library, 566 MB, between runs.
	CacheDir string
	// DataDir holds the tables. Only one process at a time can open it, and a process
	// can open only one.
	DataDir string
	// Listen is the loopback address to serve on; port 0 picks a free one.
	Listen string
	// Listener takes the place of Listen, for a caller who binds his ports before
	// anything connects. The server closes it.
	Listener net.Listener
	// Settings are what ClickHouse's settings are for a request that says nothing of
	// them, by their names, where that is not ClickHouse's own default.
	Settings map[string]string
}

// DefaultConfig caches below the user's cache directory (the temporary one where the
// user has none) and serves on a free loopback port. DataDir has no default.
func DefaultConfig() Config {
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	return Config{CacheDir: filepath.Join(base, "nimriz-partners"), Listen: "127.0.0.1:0"}
}

// Validate names the first field that cannot work.
func (c Config) Validate() error {
	if c.DataDir == "" {
		return errors.New("data directory: missing")
	}
	return checkLoopback(c.address())
}

// address is where it serves.
func (c Config) address() string {
	if c.Listener != nil {
		return c.Listener.Addr().String()
	}
	return c.Listen
}

// checkLoopback refuses every address that another machine could reach: the server
// accepts every client that can connect.
func checkLoopback(listen string) error {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("listen address: %w", err)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("listen address: %q is not a port number", port)
	}
	if host == "localhost" {
		return nil
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("listen address: %q is not a loopback address, and the embedded warehouse checks no "+
			"password", listen)
	}
	return nil
}
