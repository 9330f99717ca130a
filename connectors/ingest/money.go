package ingest

import "math"

// minorUnits reads a decimal number: digits with at most one point between them. The
// result is exact. It fails on any other text, on a digit other than 0 beyond the given
// number after the point, and on values beyond int64.
func minorUnits(text string, digits int32) (minor int64, ok bool) {
	point := -1 // index of the point
	for i := range len(text) {
		c := text[i]
		if c == '.' {
			if point >= 0 || i == 0 || i == len(text)-1 {
				return 0, false
			}
			point = i
			continue
		}
		if c < '0' || c > '9' {
			return 0, false
		}
		if point >= 0 && i-point > int(digits) {
			if c != '0' {
				return 0, false
			}
			continue
		}
		if minor, ok = timesTenPlus(minor, int64(c-'0')); !ok {
			return 0, false
		}
	}
	written := int32(0)
	if point >= 0 {
		written = min(int32(len(text)-point-1), digits)
	}
	for ; written < digits; written++ {
		if minor, ok = timesTenPlus(minor, 0); !ok {
			return 0, false
		}
	}
	return minor, text != ""
}

func timesTenPlus(v, digit int64) (int64, bool) {
	if v > (math.MaxInt64-digit)/10 {
		return 0, false
	}
	return v*10 + digit, true
}
