package kubectl

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/reports"
)

// A manager answers 503 for more than one reason. Only one of them means that another manager leads.
func TestWhatAManagerRefusesWithIsShown(t *testing.T) {
	for name, c := range map[string]struct {
		code  int
		says  string
		other bool // another manager is asked
	}{
		"another one leads": {http.StatusServiceUnavailable, reports.NotLeading, true},
		"it is busy":        {http.StatusServiceUnavailable, "too many requests at once", false},
		"no review":         {http.StatusServiceUnavailable, "the API server did not say whether this is allowed", false},
		"not allowed":       {http.StatusForbidden, `user "a" may not get hyperliquidparsers/reports`, false},
	} {
		t.Run(name, func(t *testing.T) {
			served := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, c.says, c.code)
			}))
			defer served.Close()
			m := &manager{options: managerOptions{address: served.URL}, config: &rest.Config{BearerToken: "a"}}
			defer m.disconnect()
			_, _, err := m.read(t.Context(), "ns", "mainnet", nil, false)
			if err == nil || errors.Is(err, errNotLeading) != c.other || !c.other && !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
		})
	}
}
