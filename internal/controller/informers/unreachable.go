package informers

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/fair"
)

// minBackoff and maxBackoff bound the delay before a request to an unreachable API server is retried. The delay doubles
// each time, and jitter adds up to half of it. So a watch works again within 6 s of the API server's return. A
// reflector by itself may wait for a minute. A request that cannot be delivered costs the API server nothing.
const (
	minBackoff = 250 * time.Millisecond
	maxBackoff = 4 * time.Second
)

// IsUnreachable reports whether an error means that the API server cannot be reached, or that a proxy in front of it
// has no server. It is false for a response of the API server itself, such as a refusal or that it is busy, and for the
// timeout or the cancellation of the request by the client.
func IsUnreachable(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		code := status.Status().Code
		return code == http.StatusBadGateway || code == http.StatusServiceUnavailable
	}
	var network net.Error // every error of an http.Client is one
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// RetryWhileUnreachable calls request until the API server is reachable, and returns the last error. It passes each
// error before to failed. It also returns when the context ends.
func RetryWhileUnreachable(ctx context.Context, failed func(error), request func() error) error {
	for pause := minBackoff; ; pause = min(2*pause, maxBackoff) {
		err := request()
		if !IsUnreachable(err) || ctx.Err() != nil {
			return err
		}
		failed(err)
		timer := time.NewTimer(fair.Jittered(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}
