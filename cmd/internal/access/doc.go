// Package access tests that the programs work on an Apache Kafka that lets in only whom
// it knows and allows nothing without an ACL: with exactly the rights that `ctl topics
// acls` gives, and with less they say what they lack. The package has no code but tests.
package access
