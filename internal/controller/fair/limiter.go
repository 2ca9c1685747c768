package fair

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/client-go/util/flowcontrol"
)

type tenantKey struct{}

// WithTenant returns a context whose requests belong to the tenant. All requests without a tenant belong to one.
func WithTenant(ctx context.Context, tenant string) context.Context {
	return context.WithValue(ctx, tenantKey{}, tenant)
}

func tenantOf(ctx context.Context) string {
	tenant, _ := ctx.Value(tenantKey{}).(string)
	return tenant
}

// Limiter bounds the rate of requests, like client-go's token bucket, and serves tenants in turn: however many requests
// of one tenant wait, the next request of another waits for at most one of each tenant. It is a flowcontrol.RateLimiter
// for a rest.Config, and it is safe for concurrent use.
type Limiter struct {
	bucket *rate.Limiter
	qps    float32

	mu      sync.Mutex
	waiting turns[*waiter]
	serving bool // a goroutine serves the waiters
}

// waiter is a waiting request.
type waiter struct {
	ready    chan struct{} // closed when the request may be sent
	canceled bool
}

var _ flowcontrol.RateLimiter = (*Limiter)(nil)

// NewLimiter returns a limiter of qps requests per second, which must be positive, with the given burst.
func NewLimiter(qps float32, burst int) *Limiter {
	return &Limiter{bucket: rate.NewLimiter(rate.Limit(qps), max(burst, 1)), qps: qps}
}

// Wait returns when the request may be sent, or an error if the context ends first.
func (l *Limiter) Wait(ctx context.Context) error {
	l.mu.Lock()
	if !l.serving && l.bucket.Allow() {
		l.mu.Unlock()
		return nil
	}
	w := &waiter{ready: make(chan struct{})}
	l.waiting.push(tenantOf(ctx), w)
	if !l.serving {
		l.serving = true
		go l.serve()
	}
	l.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		w.canceled = true
		return fmt.Errorf("waiting for the client's rate limiter: %w", ctx.Err())
	}
}

// serve lets waiters proceed at the limiter's rate until none is left.
func (l *Limiter) serve() {
	for {
		time.Sleep(l.bucket.Reserve().Delay())
		if !l.next() {
			return
		}
	}
}

// next lets the next request proceed. It reports whether others wait.
func (l *Limiter) next() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		w, ok := l.waiting.pop(func(string) bool { return true })
		if ok && w.canceled {
			continue
		}
		if ok {
			close(w.ready)
		}
		l.serving = len(l.waiting.order) > 0
		return l.serving
	}
}

// TryAccept reports whether a request may be sent now.
func (l *Limiter) TryAccept() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.serving && l.bucket.Allow()
}

// Accept waits until a request may be sent.
func (l *Limiter) Accept() {
	_ = l.Wait(context.Background()) // that context never ends
}

// Stop does nothing: a limiter without waiters runs no goroutine.
func (l *Limiter) Stop() {}

// QPS returns the rate of requests per second.
func (l *Limiter) QPS() float32 { return l.qps }
