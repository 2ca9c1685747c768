package controller

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

func TestALargeFleetIsNotPolledMoreOftenThanTheOperatorCanBear(t *testing.T) {
	for _, test := range []struct {
		targets                        int
		asked, askedStuck, askedLag    time.Duration
		wantPoll, wantStuck, wantedLag time.Duration
	}{
		{0, time.Second, 3 * time.Second, 3 * time.Second, time.Second, 3 * time.Second, 3 * time.Second},
		{1000, time.Second, 3 * time.Second, 3 * time.Second, time.Second, 3 * time.Second, 3 * time.Second},
		{1001, time.Second, 3 * time.Second, 3 * time.Second, 2 * time.Second, 6 * time.Second, 6 * time.Second},
		{5000, time.Second, 30 * time.Second, 0, 5 * time.Second, 30 * time.Second, 30 * time.Second},
		{5000, 5 * time.Second, 30 * time.Second, 0, 5 * time.Second, 30 * time.Second, 30 * time.Second},
		{20000, 5 * time.Second, 30 * time.Second, 30 * time.Second, 20 * time.Second, time.Minute, time.Minute},
		{3, 10 * time.Minute, 30 * time.Minute, 0, 10 * time.Minute, 30 * time.Minute, 30 * time.Minute},
	} {
		obj := &v1alpha1.HyperliquidParser{}
		obj.Spec.Growth.PollInterval = &metav1.Duration{Duration: test.asked}
		obj.Spec.Growth.StuckAfter = &metav1.Duration{Duration: test.askedStuck}
		if test.askedLag > 0 {
			obj.Spec.Growth.Lag = &metav1.Duration{Duration: test.askedLag}
		}
		got := growthSettings(obj, test.targets)
		if got.PollInterval != test.wantPoll || got.StuckAfter != test.wantStuck || got.Lag != test.wantedLag {
			t.Errorf("%d targets: polled every %s, stuck after %s, lag %s; want %s, %s, %s",
				test.targets, got.PollInterval, got.StuckAfter, got.Lag, test.wantPoll, test.wantStuck, test.wantedLag)
		}
		if rate := float64(test.targets) / got.PollInterval.Seconds(); rate > pollsPerSecond {
			t.Errorf("%d targets: %v polls a second", test.targets, rate)
		}
	}
}
