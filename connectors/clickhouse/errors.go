package clickhouse

import (
	"context"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	driver "github.com/ClickHouse/clickhouse-go/v2"
)

// ErrNoDatabase says that the server has no such database (yet).
var ErrNoDatabase = errors.New("the database does not exist: run ctl migrate")

const unknownDatabase = 81

// wrapError adds to an error of the client what this package knows about it.
func wrapError(err error) error {
	if Code(err) == unknownDatabase {
		return fmt.Errorf("%w: %w", ErrNoDatabase, err)
	}
	return err
}

// Code returns the server's error code (60 UNKNOWN_TABLE, 241 MEMORY_LIMIT_EXCEEDED,
// …), or 0 if err does not come from the server.
func Code(err error) int32 {
	var exception *driver.Exception
	if errors.As(err, &exception) {
		return exception.Code
	}
	return 0
}

// retryableCodes are the server's errors that concern its load or its surroundings, not
// the statement: the same statement can succeed later.
func retryableCodes() map[int32]string {
	return map[int32]string{
		3:   "UNEXPECTED_END_OF_FILE", // the request broke off
		74:  "CANNOT_READ_FROM_FILE_DESCRIPTOR",
		75:  "CANNOT_WRITE_TO_FILE_DESCRIPTOR",
		95:  "CANNOT_READ_FROM_SOCKET",
		96:  "CANNOT_WRITE_TO_SOCKET",
		159: "TIMEOUT_EXCEEDED",
		160: "TOO_SLOW",
		198: "DNS_ERROR",
		201: "QUOTA_EXCEEDED",
		202: "TOO_MANY_SIMULTANEOUS_QUERIES",
		203: "NO_FREE_CONNECTION",
		209: "SOCKET_TIMEOUT",
		210: "NETWORK_ERROR",
		225: "NO_ZOOKEEPER",
		236: "ABORTED",
		241: "MEMORY_LIMIT_EXCEEDED",
		242: "TABLE_IS_READ_ONLY", // a replica without its keeper
		243: "NOT_ENOUGH_SPACE",
		252: "TOO_MANY_PARTS",
		254: "NO_ACTIVE_REPLICAS",
		265: "NO_AVAILABLE_REPLICA",
		279: "ALL_CONNECTION_TRIES_FAILED",
		285: "TOO_FEW_LIVE_REPLICAS",
		286: "UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE",
		289: "REPLICA_IS_NOT_IN_QUORUM",
		319: "UNKNOWN_STATUS_OF_INSERT",
		394: "QUERY_WAS_CANCELLED", // by an operator, or because the server stops
		415: "ALL_REPLICAS_LOST",
		425: "SYSTEM_ERROR",
		439: "CANNOT_SCHEDULE_TASK",
		473: "DEADLOCK_AVOIDED",
		499: "S3_ERROR",
		745: "SERVER_OVERLOADED",
		999: "KEEPER_EXCEPTION",
	}
}

// Unreachable reports whether repeating the statement can succeed: there is no
// connection, a time limit passed, the server is overloaded or restarting, or an answer
// got lost. After such an error the outcome of an Insert is unknown: repeat exactly the
// same batch with the same token. Any other error is a refusal, and would be one again.
func Unreachable(err error) bool {
	if err == nil {
		return false
	}
	var exception *driver.Exception
	if errors.As(err, &exception) {
		_, retryable := retryableCodes()[exception.Code]
		return retryable
	}
	var status *driver.HTTPError
	if errors.As(err, &status) {
		return status.StatusCode >= http.StatusInternalServerError ||
			status.StatusCode == http.StatusRequestTimeout || status.StatusCode == http.StatusTooManyRequests
	}
	for _, lost := range []error{
		context.Canceled, context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed,
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE,
		sqldriver.ErrBadConn, driver.ErrAcquireConnTimeout, driver.ErrConnectionClosed,
	} {
		if errors.Is(err, lost) {
			return true
		}
	}
	// A request that goes out just when a stopping server closes the connection gets
	// this error, whose value net/http does not export.
	if strings.Contains(err.Error(), "http: server closed idle connection") {
		return true
	}
	// Do not accept every net.Error: url.Error is one even around "unsupported protocol
	// scheme".
	var operation *net.OpError
	var lookup *net.DNSError
	var timeout net.Error
	return errors.As(err, &operation) || errors.As(err, &lookup) || errors.As(err, &timeout) && timeout.Timeout()
}
