package informers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
	testclock "k8s.io/utils/clock/testing"
)

// closedPort returns the error of a request to a server that has shut down.
func closedPort(t *testing.T) error {
	t.Helper()
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err == nil {
		_ = answer.Body.Close()
		t.Fatal("a server that was closed answers")
	}
	return err
}

func TestWhenTheAPIServerIsUnreachable(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	code := func(code int) error {
		return &apierrors.StatusError{ErrStatus: metav1.Status{Code: int32(code), Message: "words"}}
	}
	sent := func(err error) error {
		return &url.Error{Op: "Get", URL: "https://10.96.0.1:443/api/v1/pods", Err: err}
	}
	for name, test := range map[string]struct {
		err  error
		want bool
	}{
		"nothing is wrong":                     {nil, false},
		"no server listens":                    {closedPort(t), true},
		"no server listens, in a list's error": {fmt.Errorf("failed to list *v1.Pod: %w", closedPort(t)), true},
		"the node is gone":                     {sent(&net.OpError{Op: "dial", Net: "tcp", Err: syscall.EHOSTUNREACH}), true},
		"there is no way to it":                {sent(&net.OpError{Op: "dial", Net: "tcp", Err: syscall.ENETUNREACH}), true},
		"packets are lost":                     {sent(&net.OpError{Op: "dial", Net: "tcp", Err: errTimeout{}}), true},
		"its name is not found": {
			sent(&net.DNSError{Err: "no such host", Name: "api", IsNotFound: true}), true},
		"it ends in the middle":            {sent(syscall.ECONNRESET), true},
		"it closes the connection":         {sent(io.EOF), true},
		"it closes a watch":                {io.ErrUnexpectedEOF, true},
		"the connection is lost":           {sent(errors.New("http2: client connection lost")), true},
		"a load balancer has no server":    {code(http.StatusBadGateway), true},
		"it begins, or ends":               {code(http.StatusServiceUnavailable), true},
		"it is busy":                       {apierrors.NewTooManyRequests("later", 1), false},
		"it takes too long":                {code(http.StatusGatewayTimeout), false},
		"it fails":                         {apierrors.NewInternalError(errors.New("etcd")), false},
		"it refuses":                       {apierrors.NewForbidden(pods, "", errors.New("RBAC")), false},
		"it does not know us":              {apierrors.NewUnauthorized("Unauthorized"), false},
		"it does not know the kind":        {apierrors.NewNotFound(pods, ""), false},
		"the version is too old":           {apierrors.NewResourceExpired("too old"), false},
		"we end":                           {sent(context.Canceled), false},
		"we do not wait any longer":        {sent(context.DeadlineExceeded), false},
		"an answer that cannot be decoded": {errors.New("unexpected type"), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := IsUnreachable(test.err); got != test.want {
				t.Errorf("%v: %v", test.err, got)
			}
		})
	}
}

// errTimeout is the error of a dialer after a timeout.
type errTimeout struct{}

func (errTimeout) Error() string   { return "i/o timeout" }
func (errTimeout) Timeout() bool   { return true }
func (errTimeout) Temporary() bool { return true }

// Watches work soon after an outage of any length, and health reports the failure while it lasts.
func TestAnOutageIsOverSoonAfterTheAPIServerIsBack(t *testing.T) {
	for _, outage := range []time.Duration{time.Second, 10 * time.Second, 100 * time.Second, time.Hour} {
		t.Run(outage.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				health := NewHealth(testclock.NewFakeClock(noon))
				began, asked := time.Now(), 0
				gone := func() error {
					asked++
					if time.Since(began) < outage {
						return &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
					}
					return nil
				}
				w := observed(&toolscache.ListWatch{
					ListWithContextFunc: func(context.Context, metav1.ListOptions) (runtime.Object, error) {
						return &metav1.List{}, gone()
					},
					WatchFuncWithContext: func(context.Context, metav1.ListOptions) (watch.Interface, error) {
						return watch.NewEmptyWatch(), gone()
					},
				}, pods, health)
				if _, err := w.WatchWithContext(t.Context(), metav1.ListOptions{}); err != nil {
					t.Fatal(err)
				}
				if late := time.Since(began) - outage; late > 6*time.Second {
					t.Errorf("the watch is opened %s after the return", late)
				}
				if health.watches[pods].since.IsZero() {
					t.Error("the failure was not reported to health")
				}
				if least := int(outage / (6 * time.Second)); asked < least || asked > least*2+10 {
					t.Errorf("asked %d times", asked)
				}
				if _, err := w.ListWithContext(t.Context(), metav1.ListOptions{}); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestAnOutageEndsWithTheContextAndARefusalAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		err := RetryWhileUnreachable(ctx, func(error) {}, func() error { return refused })
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(began) != time.Minute {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		forbidden, began := apierrors.NewUnauthorized("no"), time.Now()
		err = RetryWhileUnreachable(t.Context(), func(error) {}, func() error { return forbidden })
		if !errors.Is(err, forbidden) || time.Since(began) != 0 {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}
