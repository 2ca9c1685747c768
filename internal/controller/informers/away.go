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

// firstAgain and longestAgain bound how soon an API server that is away is asked again; it doubles from one to the
// other, and the jitter adds up to half of it. So what is watched is seen again within 6 s of its return, where a
// reflector by itself may wait for a minute. A request that cannot be delivered costs the API server nothing.
const (
	firstAgain   = 250 * time.Millisecond
	longestAgain = 4 * time.Second
)

// Away reports whether an error says that the API server cannot be reached, or that what answers for it does not serve.
// What the API server says of a request, a refusal or that it is busy, is none; nor is the end of the asker's own
// patience.
func Away(err error) bool {
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

// UntilReached asks until the API server is not away, and returns what it answers. Each time that it is away, failed
// takes in the error. It returns the last error when the context ends.
func UntilReached(ctx context.Context, failed func(error), ask func() error) error {
	for pause := firstAgain; ; pause = min(2*pause, longestAgain) {
		err := ask()
		if !Away(err) || ctx.Err() != nil {
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
