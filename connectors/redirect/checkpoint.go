package redirect

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// checkpointFile is the text file that holds the acknowledged position: version,
// segment, offset, and a checksum of the three, such as `1 42 8193 4d12c147`.
//
// The file is called "cut" on disk. Its name stays: a redirector that looked for
// another name after an upgrade would find no checkpoint and send its whole spool
// again.
const checkpointFile = "cut"

func formatCheckpoint(p position) string {
	body := fmt.Sprintf("1 %d %d", p.segment, p.offset)
	return fmt.Sprintf("%s %08x\n", body, crc32.Checksum([]byte(body), castagnoli))
}

// parseCheckpoint accepts exactly what formatCheckpoint returns.
func parseCheckpoint(text string) (position, error) {
	var p position
	var sum uint32
	_, err := fmt.Sscanf(text, "1 %d %d %x\n", &p.segment, &p.offset, &sum)
	if err != nil || p.offset < 0 || formatCheckpoint(p) != text {
		return position{}, fmt.Errorf("parsing the spool's checkpoint: %.60q is damaged or of another version", text)
	}
	return p, nil
}

// writeCheckpoint replaces the checkpoint on disk. The new one is durable when it
// returns nil.
func (s *Spool) writeCheckpoint(p position) error {
	path := filepath.Join(s.cfg.SpoolDir, checkpointFile)
	err := renameio.WriteFile(path, []byte(formatCheckpoint(p)), 0o600, renameio.WithTempDir(s.cfg.SpoolDir))
	if err != nil {
		return fmt.Errorf("writing the spool's checkpoint: %w", err)
	}
	return nil
}

// readCheckpoint returns the acknowledged position, or the zero position if the file is
// missing or unusable. Then the whole spool is sent again, which costs look-ups in the
// click log but does not change a result.
func (s *Spool) readCheckpoint() position {
	text, err := os.ReadFile(filepath.Join(s.cfg.SpoolDir, checkpointFile))
	if errors.Is(err, os.ErrNotExist) {
		return position{}
	}
	var p position
	if err == nil {
		p, err = parseCheckpoint(string(text))
	}
	if err != nil {
		s.log.Warn("spool: cannot use the checkpoint; the whole spool is sent again", "file", checkpointFile,
			"error", err)
		return position{}
	}
	return p
}
