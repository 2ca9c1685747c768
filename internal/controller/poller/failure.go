package poller

import (
	"context"
	"errors"
	"net"
)

// Failure is why a poll brought no report, as a word for metrics.
type Failure string

// The failures.
const (
	Timeout      Failure = "Timeout"      // no answer in time
	Connection   Failure = "Connection"   // no connection, or it broke, or it carried no HTTP
	NoKey        Failure = "NoKey"        // the parser's key or the operator's is unknown
	Unauthorized Failure = "Unauthorized" // the parser does not know the operator's key
	BadStatus    Failure = "Status"       // another HTTP status than 200
	NotSealed    Failure = "Seal"         // the answer is not sealed by the pod's parser for this request
	WrongPod     Failure = "WrongPod"     // the report is another pod's or another target's
	Invalid      Failure = "Invalid"      // the answer is no report that a parser makes
)

// Failures lists every failure.
func Failures() []Failure {
	return []Failure{Timeout, Connection, NoKey, Unauthorized, BadStatus, NotSealed, WrongPod, Invalid}
}

// failure is an error with its Failure. The text is the error's own.
type failure struct {
	error
	as Failure
}

func (f *failure) Unwrap() error { return f.error }

// failed classifies an error; nil stays nil. The innermost class counts.
func failed(as Failure, err error) error {
	if _, classified := errors.AsType[*failure](err); err == nil || classified {
		return err
	}
	return &failure{err, as}
}

// FailureOf returns why a poll failed; "" if it did not.
func FailureOf(err error) Failure {
	if err == nil {
		return ""
	}
	if network, ok := errors.AsType[net.Error](err); ok && network.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return Timeout
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return f.as
	}
	return Connection
}
