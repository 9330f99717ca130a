// Package token mints and verifies click tokens, which link a click to the conversions
// that follow it.
//
// A token is a KSUID (github.com/segmentio/ksuid), written as 27 base62 characters.
// Texts sort as their bytes do:
//
//	+---------------------+--------------------+--------------------------------------+
//	| seconds since 1.4e9 | random             | HMAC-SHA256(workspace, time, random) |
//	| 4 B, big-endian     | 10 B               | its first 6 B                        |
//	+---------------------+--------------------+--------------------------------------+
//
// It carries no personal data. Because tokens sort by time, the stores write in key
// order. The MAC lets the gateway refuse forged tokens, and tokens of another
// workspace, before they cost any state. It has 48 bits: a forger needs 2^47 signed
// requests on average for one hit.
//
// A click of a workspace without key has a token too, of random bytes only (Unsigned):
// it names the click, no visitor sees it, and it verifies nowhere.
//
// MAC input: the byte 1 (version), the length of the workspace id as one byte, the
// workspace id, and the first 14 bytes of the token.
//
// # Metrics
//
// A process that reads token keys, signing secrets or reader tokens registers these, in
// cmd/internal/components; component names it, flag the directory.
//
//	partners_secrets_unreadable{component,flag}    files that cannot be used; a directory
//	                                               that cannot be read counts as one
//	partners_secrets_last_used_timestamp_seconds{component,flag,workspace,key_id}
//	                                               of each signing secret and token key in
//	                                               force; 0: not since the process started
package token
