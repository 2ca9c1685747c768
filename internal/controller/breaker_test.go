package controller_test

import (
	"errors"
	"net/http"
	"strings"
	"sync"

	"k8s.io/client-go/rest"
)

// breaker ends and refuses all lists and watches of nodes while it is set.
type breaker struct {
	mu     sync.Mutex
	broken bool
	open   []func()
}

func (b *breaker) wrap(c *rest.Config) {
	c.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if !strings.HasSuffix(r.URL.Path, "/nodes") {
				return next.RoundTrip(r)
			}
			b.mu.Lock()
			broken := b.broken
			b.mu.Unlock()
			if broken {
				return nil, errors.New("broken")
			}
			answer, err := next.RoundTrip(r)
			if err == nil {
				b.mu.Lock()
				b.open = append(b.open, func() { _ = answer.Body.Close() })
				b.mu.Unlock()
			}
			return answer, err
		})
	})
}

func (b *breaker) set(broken bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.broken = broken
	for _, end := range b.open {
		end()
	}
	b.open = nil
}
