package sink

import (
	"errors"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/pipeline/kafka"
)

// Errors that stop the sink. Repeating cures none of them: each means that
// effectively-once can no longer be proven, or cannot begin, and its text says what to
// do.
var (
	// ErrTopicChanged: the topic was deleted and created again, or this is another
	// cluster. Its offsets have no relation to the tables.
	ErrTopicChanged = errors.New("topic id changed")
	// ErrNoTopic: a topic is missing.
	ErrNoTopic = errors.New("topic does not exist")
	// ErrNoCommit: neither the tables nor the consumer group say where to begin.
	ErrNoCommit = errors.New("no committed offset")
	// ErrForgotten: the consumer group is ahead of tables that have no finished batch.
	ErrForgotten = errors.New("ClickHouse has forgotten what it had")
	// ErrWentBack: ClickHouse no longer has a batch that this sink has recorded.
	ErrWentBack = errors.New("ClickHouse went back to an earlier state")
	// ErrOtherWarehouse: the group fills another warehouse, or another group fills this one.
	ErrOtherWarehouse = errors.New("another warehouse")
	// ErrLostRange: records that are not in the tables are no longer in Kafka.
	ErrLostRange = errors.New("records are gone from Kafka")
	// ErrHalfDone: a batch is partly in the tables, and a repeated insert could no
	// longer be recognised as such.
	ErrHalfDone = errors.New("half-done batch")
	// ErrWindow: a table's deduplication window is too small to repeat inserts.
	ErrWindow = errors.New("deduplication window too small")
	// ErrPartitions: the topics have other partition counts than the installation was
	// made with.
	ErrPartitions = kafka.ErrPartitions
	// ErrIntent: the commit's metadata was not written by this program.
	ErrIntent = errors.New("unreadable intent")
	// ErrSurplus: ClickHouse has rows or sums that no record accounts for.
	ErrSurplus = errors.New("rows or sums too many")
	// ErrBusy: a sink runs while Complete needs the tables for itself.
	ErrBusy = errors.New("a sink is running")
	// ErrRepairing: a repair holds the tables; sinks wait until it has ended.
	ErrRepairing = errors.New("a repair of the tables is running")
	// ErrRepairLock: a repair could no longer say that it runs, so sinks may insert.
	ErrRepairLock = errors.New("the lock against sinks is lost")
	// ErrUnrecorded: a batch was declared and is not recorded as finished, so it may be
	// in some tables and not in others.
	ErrUnrecorded = errors.New("unfinished batch")
)

// NeedsOperator reports whether err is one of those above, those from ErrBusy on
// excepted: starting the sink again changes nothing.
func NeedsOperator(err error) bool {
	for _, stop := range []error{ErrTopicChanged, ErrNoTopic, ErrNoCommit, ErrForgotten, ErrWentBack,
		ErrOtherWarehouse, ErrLostRange, ErrHalfDone, ErrWindow, ErrPartitions, ErrIntent, ErrSurplus} {
		if errors.Is(err, stop) {
			return true
		}
	}
	return false
}

// errKafka is a request to Kafka that failed and is repeated.
var errKafka = errors.New("kafka")

// retryable reports whether repeating can succeed without an operator.
func retryable(err error) bool {
	return !NeedsOperator(err) &&
		(errors.Is(err, errKafka) || errors.Is(err, ErrRepairing) || errors.Is(err, kafka.ErrGrowing) ||
			clickhouse.Unreachable(err))
}
