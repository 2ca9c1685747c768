package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/healthz"
)

// freeAddress returns an address that no process listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// probe sends a probe as a kubelet does. 0 means no answer.
func probe(t *testing.T, address, path string) (code int, text string) {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + address + path)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

func TestHealthIsServedWithAndWithoutAManager(t *testing.T) {
	address, begins := freeAddress(t), newStartup()
	var broken error
	stop, err := serveHealth(address, map[string]healthz.Checker{
		"start": begins.Check, "watches": func(*http.Request) error { return broken },
	})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(when string, want map[string]int) {
		t.Helper()
		for path, code := range want {
			if got, text := probe(t, address, path); got != code {
				t.Errorf("%s: %s is %d: %s", when, path, got, text)
			}
		}
	}
	alive, ready, not := http.StatusOK, http.StatusOK, http.StatusInternalServerError
	expect("while it waits", map[string]int{
		"/healthz": alive, "/healthz/": alive, "/healthz/ping": alive, "/readyz": not, "/readyz/start": not,
		"/readyz/watches": ready, "/": 404})
	close(begins.reached)
	expect("while it works", map[string]int{"/healthz": alive, "/readyz": ready, "/readyz/start": ready})
	broken = errors.New("a watch fails")
	expect("while a watch fails", map[string]int{"/healthz": alive, "/readyz": not, "/readyz/start": ready,
		"/readyz/watches": not})

	if _, err := serveHealth(address, nil); err == nil {
		t.Error("an address that is taken is served")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if code, _ := probe(t, address, "/healthz"); code != 0 {
		t.Errorf("after the end: %d", code)
	}
	for _, none := range []string{"", "0"} {
		if stop, err := serveHealth(none, nil); err != nil || stop() != nil {
			t.Errorf("%q: %v", none, err)
		}
	}
}

// The manager recovers from an outage of any length within seconds, with few requests and log lines.
func TestTheAPIServerIsWaitedFor(t *testing.T) {
	for _, outage := range []time.Duration{0, time.Second, 100 * time.Second, time.Hour} {
		t.Run(outage.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, began := newStartup(), time.Now()
				asked, said := 0, 0
				err := b.await(t.Context(), func(context.Context) error {
					asked++
					if b.Check(nil) == nil {
						t.Error("it is ready too soon")
					}
					if time.Since(began) < outage {
						return &url.Error{Op: "Get", URL: "https://10.96.0.1", Err: syscall.ECONNREFUSED}
					}
					return nil
				}, func(error) { said++ })
				late := time.Since(began) - outage
				if err != nil || b.Check(nil) != nil || late > 5*time.Second {
					t.Errorf("%v, %s late, %v", err, late, b.Check(nil))
				}
				if most := int(outage/maxBackoff) + 10; asked > most {
					t.Errorf("asked %d times", asked)
				}
				if most := int(outage/time.Minute) + 1; said > most || outage > 0 && said == 0 {
					t.Errorf("said so %d times", said)
				}
			})
		})
	}
}

func TestWhatIsSaidWhileTheAPIServerIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		words := []string{"refused", "refused", "forbidden", "forbidden", "refused"}
		asked := 0
		var said []string
		err := newStartup().await(t.Context(), func(context.Context) error {
			if asked++; asked > len(words) {
				return nil
			}
			return errors.New(words[asked-1])
		}, func(err error) { said = append(said, err.Error()) })
		if got := strings.Join(said, " "); err != nil || got != "refused forbidden refused" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

func TestAProcessThatIsAskedToEndDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		began := time.Now()
		b := newStartup()
		err := b.await(ctx, func(ctx context.Context) error {
			<-ctx.Done() // it hangs
			if limit := time.Since(began); limit == 0 {
				t.Error("an attempt has no time")
			}
			return ctx.Err()
		}, func(error) {})
		if !errors.Is(err, context.Canceled) || time.Since(began) != time.Minute || b.Check(nil) == nil {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}

// A leader exits before another starts, whatever hangs, and there is a leader soon after an outage.
func TestTheTimesOfLeaderElection(t *testing.T) {
	const giveUp = renewDeadline / 2 // the lock's client waits no longer for the request that gives the lease up
	if left := leaseDuration - renewDeadline - giveUp; left < time.Second {
		t.Errorf("%s for clocks that differ", left)
	}
	if tries := renewDeadline / retryPeriod; tries < 3 {
		t.Errorf("%d attempts to renew", tries)
	}
	// A manager that has not observed the lease before the outage reads it, waits until it expires, and reads it again,
	// each with client-go's jitter.
	if worst := leaseDuration + 2*retryPeriod*22/10; worst > 15*time.Second {
		t.Errorf("there is no leader for %s after an outage", worst)
	}
}
