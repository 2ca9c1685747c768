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

// WithTenant returns a context whose requests are the tenant's. Those of a context without one are a tenant together.
func WithTenant(ctx context.Context, tenant string) context.Context {
	return context.WithValue(ctx, tenantKey{}, tenant)
}

func tenantOf(ctx context.Context) string {
	tenant, _ := ctx.Value(tenantKey{}).(string)
	return tenant
}

// Limiter bounds the rate of requests, like client-go's token bucket, and gives tenants their turns: however many requests of
// one wait, the next of another waits for one of each tenant at most. It is a rest.Config's RateLimiter, and safe for concurrent use.
type Limiter struct {
	bucket *rate.Limiter
	qps    float32

	mu      sync.Mutex
	waiting turns[*turn]
	serving bool // a goroutine serves those that wait
}

// turn is a request that waits.
type turn struct {
	come chan struct{} // closed when it has
	gone bool          // nobody waits for it any more
}

var _ flowcontrol.RateLimiter = (*Limiter)(nil)

// NewLimiter returns a limiter of qps requests a second, above 0; burst of them may come at once.
func NewLimiter(qps float32, burst int) *Limiter {
	return &Limiter{bucket: rate.NewLimiter(rate.Limit(qps), max(burst, 1)), qps: qps}
}

// Wait returns when the request may go, or the context's error when that ends first.
func (l *Limiter) Wait(ctx context.Context) error {
	l.mu.Lock()
	if !l.serving && l.bucket.Allow() {
		l.mu.Unlock()
		return nil
	}
	t := &turn{come: make(chan struct{})}
	l.waiting.push(tenantOf(ctx), t)
	if !l.serving {
		l.serving = true
		go l.serve()
	}
	l.mu.Unlock()
	select {
	case <-t.come:
		return nil
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		t.gone = true
		return fmt.Errorf("waiting for a turn to ask the API server: %w", ctx.Err())
	}
}

// serve gives out turns at the limiter's rate until nobody waits.
func (l *Limiter) serve() {
	for {
		time.Sleep(l.bucket.Reserve().Delay())
		if !l.next() {
			return
		}
	}
}

// next lets the next request go. It reports whether others wait.
func (l *Limiter) next() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		t, ok := l.waiting.pop(func(string) bool { return true })
		if ok && t.gone {
			continue
		}
		if ok {
			close(t.come)
		}
		l.serving = len(l.waiting.order) > 0
		return l.serving
	}
}

// TryAccept reports whether a request may go now.
func (l *Limiter) TryAccept() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.serving && l.bucket.Allow()
}

// Accept waits for as long as it takes.
func (l *Limiter) Accept() {
	_ = l.Wait(context.Background()) // which never ends
}

// Stop does nothing: a limiter that nobody waits for runs nothing.
func (l *Limiter) Stop() {}

// QPS is how many requests a second may go.
func (l *Limiter) QPS() float32 { return l.qps }
