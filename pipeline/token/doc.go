// Package token mints and verifies click tokens: the deterministic bridge between a
// click and the conversions that follow it.
//
// A token is a KSUID (github.com/segmentio/ksuid), written as 27 base62 characters
// whose text sorts as its bytes do:
//
//	+---------------------+--------------------+------------------------------------+
//	| seconds since 1.4e9 | random             | HMAC-SHA256(workspace, time, random) |
//	| 4 B, big-endian     | 10 B               | its first 6 B                      |
//	+---------------------+--------------------+------------------------------------+
//
// It carries nothing personal. The time order makes the stores fast and chooses the
// partition epoch (schemas/topic); the MAC lets the gateway refuse forged tokens and
// tokens of another workspace before they cost any state: 48 bits, so a forger needs
// 2^47 signed requests on average for one hit.
//
// MAC input: the byte 1 (version), the workspace id's length as one byte, the workspace
// id, then the first 14 bytes of the token.
package token
