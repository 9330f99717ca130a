package token

import (
	"encoding/binary"
	"math/bits"
)

// Base 62 as KSUID writes it (https://github.com/segmentio/ksuid): 27 digits, most
// significant first, of a number of 160 bits. ksuid.Parse takes 130 ns for it, a
// seventh of what the processor spends on a click, so reading is done here: digits in
// words, words into limbs. Writing is left to ksuid, and so is the judgement: FuzzParse
// holds both against each other.

// digits maps a character to its value; 0xff is no digit.
var digits = func() (d [256]byte) {
	for i := range d {
		d[i] = 0xff
	}
	for i, c := range []byte("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
		d[c] = byte(i)
	}
	return d
}()

const (
	pow7  = 62 * 62 * 62 * 62 * 62 * 62 * 62
	pow10 = pow7 * 62 * 62 * 62
)

// word reads at most ten digits. bad has its highest bit set if one of them is none.
func word(text string) (v uint64, bad byte) {
	for i := range len(text) {
		d := digits[text[i]]
		bad |= d
		v = v*62 + uint64(d)
	}
	return v, bad
}

// decode reads 27 digits; false if there is another character, or the number needs more
// than 160 bits.
func decode(text string) (raw Raw, ok bool) {
	if len(text) != Len {
		return raw, false
	}
	a, bad1 := word(text[:10])
	b, bad2 := word(text[10:20])
	c, bad3 := word(text[20:])
	if (bad1|bad2|bad3)&0x80 != 0 {
		return raw, false
	}
	// (a·62¹⁰ + b)·62⁷ + c, in limbs of 64 bits.
	high, low := bits.Mul64(a, pow10)
	low, carry := bits.Add64(low, b, 0)
	high += carry
	mid, low := bits.Mul64(low, pow7)
	low, carry = bits.Add64(low, c, 0)
	top, rest := bits.Mul64(high, pow7)
	mid, carry = bits.Add64(mid, rest, carry)
	top += carry
	binary.BigEndian.PutUint32(raw[:], uint32(top))
	binary.BigEndian.PutUint64(raw[4:], mid)
	binary.BigEndian.PutUint64(raw[12:], low)
	return raw, top>>32 == 0
}
