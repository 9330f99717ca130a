// Package event defines the records that travel through the pipeline (Click,
// Conversion, Outcome, Progress and Rejection) as Go types and as Avro, and the rows in
// which a token's journey is kept (journey.go).
//
// On the wire a record is Avro binary in Confluent framing:
//
//	+------+-----------------+----------------------+
//	| 0x00 | schema id (BE)  | Avro binary          |
//	| 1 B  | 4 B             | …                    |
//	+------+-----------------+----------------------+
//
// Schema ids come from a lock file: ids.json, or a file with the ids of a schema
// registry. No daemon asks a registry. A decoder knows every schema version of the lock
// file and reads each into today's type; an encoder writes the newest version.
//
// The schemas are the *.avsc files, one for each version. goavro is the reference
// codec: it writes and reads the rare records (Progress, Rejection) and prints any
// record in readable form, and the tests compare every encoding with it. Click,
// Conversion and Outcome are coded once for each click or event, so programs do it by
// hand: clickwriter.go, outcomewriter.go and fieldreader.go. twmb/avro writes
// conversions, reads what is unusual or of an earlier version, and is the oracle of
// both. All stay: a codec that only agrees with itself proves nothing. A FieldTable,
// made from the schema, says where each field of a click or outcome is without making a
// record.
//
// Empty text means absent; nullable numbers are pointers. Times are unix milliseconds
// (Millis).
package event
