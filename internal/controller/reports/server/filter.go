package server

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	authenticationv1 "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationv1 "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/reports"
)

const (
	// reviewTimeout bounds one TokenReview.
	reviewTimeout = 10 * time.Second
	// Reviews are remembered: a screen that is redrawn asks every two seconds. A right that was taken away ends after
	// allowedFor at the latest, and a new one is seen after deniedFor.
	authenticatedFor, allowedFor, deniedFor = time.Minute, time.Minute, 10 * time.Second
)

// subresources are what a reader of the paths that begin so must be allowed to get, in the object's namespace. Records
// are data, so that samples have a right of their own.
var subresources = []struct{ prefix, subresource string }{
	{reports.Path, reports.Subresource},
	{reports.DiagnosisPath, reports.Subresource},
	{reports.SamplesPath, reports.SamplesSubresource},
}

// Filter lets in a request about an object's parsers if the API server knows the bearer of its token, and allows them
// what subresources names for its path, in the object's namespace: the verb get on hyperliquidparsers/reports, or on
// hyperliquidparsers/samples. Other requests, those for metrics, pass controller-runtime's filter. It is the
// FilterProvider of a metrics server.
func Filter(config *rest.Config, client *http.Client) (metricsserver.Filter, error) {
	metrics, err := filters.WithAuthenticationAndAuthorization(config, client)
	if err != nil {
		return nil, fmt.Errorf("making the filter of metrics: %w", err)
	}
	tokens, err := authenticationv1.NewForConfigAndClient(config, client)
	if err != nil {
		return nil, fmt.Errorf("making a client for TokenReviews: %w", err)
	}
	access, err := authorizationv1.NewForConfigAndClient(config, client)
	if err != nil {
		return nil, fmt.Errorf("making a client for SubjectAccessReviews: %w", err)
	}
	backoff := &wait.Backoff{Duration: 500 * time.Millisecond, Factor: 1.5, Jitter: 0.2, Steps: 3}
	authenticate, _, err := authenticatorfactory.DelegatingAuthenticatorConfig{
		Anonymous:               &apiserver.AnonymousAuthConfig{Enabled: false},
		TokenAccessReviewClient: tokens, TokenAccessReviewTimeout: reviewTimeout, WebhookRetryBackoff: backoff,
		CacheTTL: authenticatedFor,
	}.New()
	if err != nil {
		return nil, fmt.Errorf("making the authenticator of reports: %w", err)
	}
	authorize, err := authorizerfactory.DelegatingAuthorizerConfig{
		SubjectAccessReviewClient: access, WebhookRetryBackoff: backoff,
		AllowCacheTTL: allowedFor, DenyCacheTTL: deniedFor,
	}.New()
	if err != nil {
		return nil, fmt.Errorf("making the authorizer of reports: %w", err)
	}
	return func(log logr.Logger, handler http.Handler) (http.Handler, error) {
		others, err := metrics(log, handler)
		if err != nil {
			return nil, fmt.Errorf("filtering metrics: %w", err)
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			at := slices.IndexFunc(subresources, func(s struct{ prefix, subresource string }) bool {
				return strings.HasPrefix(r.URL.Path, s.prefix)
			})
			if at < 0 {
				others.ServeHTTP(w, r)
				return
			}
			who, ok, err := authenticate.AuthenticateRequest(r)
			switch {
			case err != nil:
				log.Error(err, "authenticating a reader of reports")
				http.Error(w, "the API server does not know this token", http.StatusUnauthorized)
			case !ok:
				http.Error(w, "a bearer token is required", http.StatusUnauthorized)
			case !allowed(w, r, log, authorize, who.User, subresources[at].prefix, subresources[at].subresource):
			default:
				handler.ServeHTTP(w, r)
			}
		}), nil
	}, nil
}

// allowed reports whether the user may get the subresource of the object that the request is for. If not it has
// answered.
func allowed(
	w http.ResponseWriter, r *http.Request, log logr.Logger, authorize authorizer.Authorizer, who user.Info,
	prefix, subresource string,
) bool {
	object, ok := objectBelow(prefix, r.URL.Path)
	if !ok {
		http.NotFound(w, r)
		return false
	}
	decision, reason, err := authorize.Authorize(r.Context(), authorizer.AttributesRecord{
		User: who, Verb: "get", ResourceRequest: true,
		APIGroup: v1alpha1.GroupVersion.Group, APIVersion: v1alpha1.GroupVersion.Version,
		Resource: reports.Resource, Subresource: subresource,
		Namespace: object.Namespace, Name: object.Name,
	})
	switch {
	case err != nil:
		log.Error(err, "authorizing a reader of reports", "user", who.GetName())
		http.Error(w, "the API server did not say whether this is allowed", http.StatusServiceUnavailable)
	case decision != authorizer.DecisionAllow:
		log.V(1).Info("refused a reader of reports", "user", who.GetName(), "object", object, "reason", reason)
		http.Error(w, fmt.Sprintf("user %q may not get %s/%s %q in namespace %q", who.GetName(), reports.Resource,
			subresource, object.Name, object.Namespace), http.StatusForbidden)
	default:
		return true
	}
	return false
}
