package redirect

import (
	"fmt"
	"hash/crc32"
)

func cutText(p position) string {
	body := fmt.Sprintf("1 %d %d", p.segment, p.offset)
	return fmt.Sprintf("%s %08x\n", body, crc32.Checksum([]byte(body), castagnoli))
}

// parseCut accepts exactly what cutText writes.
func parseCut(text string) (position, error) {
	var p position
	var sum uint32
	if _, err := fmt.Sscanf(text, "1 %d %d %x\n", &p.segment, &p.offset, &sum); err != nil || p.offset < 0 ||
		cutText(p) != text {
		return position{}, fmt.Errorf("reading the spool's cut: %.60q is not a cut", text)
	}
	return p, nil
}
