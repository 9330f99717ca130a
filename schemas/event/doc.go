// Package event holds the records that travel through the pipeline: Click, Conversion,
// Outcome, Progress and Rejection, as Go types and as Avro, and the rows in which a
// token's journey is kept (journey.go).
//
// On the wire a record is Avro binary in Confluent framing:
//
//	+------+-----------------+----------------------+
//	| 0x00 | schema id (BE)  | Avro binary          |
//	| 1 B  | 4 B             | …                    |
//	+------+-----------------+----------------------+
//
// Schema ids come from a lock file (ids.json, or one that a schema registry's ids were
// written to); no daemon asks a registry. A decoder knows every schema version in the
// lock file and reads each into today's type; the newest version of a record is the one
// it writes.
//
// The schemas are the *.avsc files. goavro is the reference codec: it writes and reads
// the records that are rare (Progress, Rejection), prints any record in readable form,
// and the tests hold every encoding against it. Click, Conversion and Outcome are on
// the path of each click or event; they are coded by twmb/avro, which writes the same
// bytes without maps (a test proves it).
//
// Empty text means absent; nullable numbers are pointers. Times are unix milliseconds
// (Millis).
package event
