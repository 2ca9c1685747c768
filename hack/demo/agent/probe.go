package agent

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

type probeKind int

const (
	readiness probeKind = iota
	liveness
	startup
)

// probed is the result of a probe, after its thresholds are applied.
type probed struct {
	kind    probeKind
	passing bool
	message string
}

// probe polls until ctx ends, and sends every change of the result. There is no result before a threshold is reached.
func probe(ctx context.Context, kind probeKind, p *corev1.Probe, c *corev1.Container, ip string, out chan<- probed) {
	if !sleep(ctx, time.Duration(p.InitialDelaySeconds)*time.Second) {
		return
	}
	var passing, known bool
	for passed, failed := int32(0), int32(0); ; {
		message := probeOnce(ctx, p, c, ip)
		if message == "" {
			passed, failed = passed+1, 0
		} else {
			passed, failed = 0, failed+1
		}
		passes, fails := passed >= max(p.SuccessThreshold, 1), failed >= max(p.FailureThreshold, 1)
		if changed := !known || passes != passing; changed && (passes || fails) {
			passing, known = passes, true
			select {
			case out <- probed{kind: kind, passing: passing, message: message}:
			case <-ctx.Done():
				return
			}
		}
		period := time.Duration(max(p.PeriodSeconds, 1)) * time.Second
		if !known && kind != liveness {
			// A process needs a moment until it listens. A kubelet also probes early here.
			period = min(period, 500*time.Millisecond)
		}
		if !sleep(ctx, period) {
			return
		}
	}
}

// probeOnce returns why the probe failed, or "" if it passed.
func probeOnce(ctx context.Context, p *corev1.Probe, c *corev1.Container, ip string) string {
	if p.HTTPGet == nil {
		return "the demo's agent supports only httpGet probes"
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(max(p.TimeoutSeconds, 1))*time.Second)
	defer cancel()
	port, err := portNumber(c, p.HTTPGet.Port)
	if err != nil {
		return err.Error()
	}
	url := "http://" + net.JoinHostPort(ip, strconv.Itoa(port)) + p.HTTPGet.Path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err.Error()
	}
	response, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 10<<10))
	if response.StatusCode < 200 || response.StatusCode >= 400 {
		return fmt.Sprintf("HTTP probe failed with statuscode: %d", response.StatusCode)
	}
	return ""
}

func portNumber(c *corev1.Container, port intstr.IntOrString) (int, error) {
	if port.Type == intstr.Int {
		return port.IntValue(), nil
	}
	for _, p := range c.Ports {
		if p.Name == port.StrVal {
			return int(p.ContainerPort), nil
		}
	}
	return 0, fmt.Errorf("the container has no port %s", port.StrVal)
}

// sleep waits for d, and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
