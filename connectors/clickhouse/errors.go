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

// ErrNoDatabase: the server has no such database (yet).
var ErrNoDatabase = errors.New("the database does not exist: run ctl migrate")

const unknownDatabase = 81

// wrap adds what this package knows to an error of the client.
func wrap(err error) error {
	if Code(err) == unknownDatabase {
		return fmt.Errorf("%w: %w", ErrNoDatabase, err)
	}
	return err
}

// Code is the server's error code (60 UNKNOWN_TABLE, 241 MEMORY_LIMIT_EXCEEDED, …), 0
// if err is none of the server's.
func Code(err error) int32 {
	var exception *driver.Exception
	if errors.As(err, &exception) {
		return exception.Code
	}
	return 0
}

// passing are the server's errors that say something about its load or its
// surroundings, nothing about the statement: the same statement can succeed later.
func passing() map[int32]string {
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

// Unreachable tells an error that time can heal (no connection, a time limit, an
// overloaded or restarting server, an answer that got lost) from a refusal. After an
// unreachable Insert it is not known whether it happened: repeat exactly the same batch
// with the same token. A refused one would be refused again.
func Unreachable(err error) bool {
	if err == nil {
		return false
	}
	var exception *driver.Exception
	if errors.As(err, &exception) {
		_, passes := passing()[exception.Code]
		return passes
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
	// net/http keeps the value of this one to itself. It is what a request gets that
	// goes out just when a server that ends closes the connection.
	if strings.Contains(err.Error(), "http: server closed idle connection") {
		return true
	}
	// Not every net.Error: url.Error is one even around "unsupported protocol scheme".
	var operation *net.OpError
	var lookup *net.DNSError
	var timeout net.Error
	return errors.As(err, &operation) || errors.As(err, &lookup) || errors.As(err, &timeout) && timeout.Timeout()
}
