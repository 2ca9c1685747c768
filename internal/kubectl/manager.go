package kubectl

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/utils/ptr"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/reports"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sampling"
)

const (
	// managerPods selects the manager's pods, in every way of installing it.
	managerPods = "control-plane=controller-manager,app.kubernetes.io/name=hyperliquid-parser-operator"
	// managerPort is the port of the manager's pods that serves metrics and reports.
	managerPort = 8443
	// managerTimeout bounds one request to a manager, and the opening of a tunnel to it.
	managerTimeout = 30 * time.Second
	// tokenSeconds is how long a token of a service account is valid: the least that the API server gives.
	tokenSeconds = 600
)

// managerOptions say how the manager is reached.
type managerOptions struct {
	// address is the URL of its endpoint; empty: a port is forwarded to a pod of its.
	address string
	// authority is a file with the certificates that verify an address other than the loopback.
	authority string
	namespace string // of its pods
	// serviceAccount is whose token is sent, as [NAMESPACE/]NAME; empty: the user's own.
	serviceAccount string
}

// manager makes requests of the manager. It is not safe for concurrent use.
type manager struct {
	options   managerOptions
	config    *rest.Config
	api       kubernetes.Interface
	namespace string // of a service account without one

	token   string
	renewal time.Time
	address string // of a manager that has answered
	http    *http.Client
	close   func()
}

// errNotLeading means that another manager leads.
var errNotLeading = errors.New("no manager leads")

// read returns what the manager serves of an object. Only the named targets are served, or all if there are none.
func (m *manager) read(ctx context.Context, namespace, name string, targets []string, samples bool) (
	reports.Head, []reports.Target, error,
) {
	query := url.Values{}
	for _, target := range targets {
		query.Add(reports.QueryTarget, target)
	}
	if samples {
		query.Set(reports.QuerySamples, "")
	}
	var head reports.Head
	var out []reports.Target
	err := m.request(ctx, reports.Path+namespace+"/"+name, query, func(body io.Reader) (err error) {
		head, out, err = reports.Read(body)
		return err
	})
	return head, out, err
}

// sample returns a sample of the records that the parser of a target delivers now.
func (m *manager) sample(ctx context.Context, namespace, name, target string, f sampling.Filter) (
	sampling.Sample, error,
) {
	query := url.Values{
		reports.QueryTarget: {target}, reports.QueryStream: {f.Stream}, reports.QueryCoin: {f.Coin},
		reports.QueryRecords: {strconv.Itoa(f.Records)},
	}
	var out sampling.Sample
	err := m.request(ctx, reports.SamplesPath+namespace+"/"+name, query, func(body io.Reader) error {
		return reports.ReadOne(body, &out)
	})
	return out, err
}

// diagnosis returns what the parser of a target does, or what the manager does if the target is empty.
func (m *manager) diagnosis(ctx context.Context, namespace, name, target string) (reports.Diagnosis, error) {
	query := url.Values{}
	if target != "" {
		query.Set(reports.QueryTarget, target)
	}
	var out reports.Diagnosis
	err := m.request(ctx, reports.DiagnosisPath+namespace+"/"+name, query, func(body io.Reader) error {
		return reports.ReadOne(body, &out)
	})
	return out, err
}

// metrics returns the metrics of the manager, at most limit bytes of them.
func (m *manager) metrics(ctx context.Context, limit int64) ([]byte, error) {
	var out []byte
	err := m.request(ctx, "/metrics", nil, func(body io.Reader) (err error) {
		if out, err = io.ReadAll(io.LimitReader(body, limit)); err != nil {
			return fmt.Errorf("reading the manager's metrics: %w", err)
		}
		return nil
	})
	return out, err
}

// request makes a request of the manager that leads, and reads its answer.
func (m *manager) request(ctx context.Context, path string, query url.Values, read func(io.Reader) error) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	if m.address != "" {
		err := m.get(ctx, path, read)
		if refused := new(refusal); err == nil || ctx.Err() != nil || errors.As(err, &refused) {
			return err
		}
		m.disconnect() // the manager may have ended
	}
	if m.options.address != "" {
		if err := m.dialAddress(); err != nil {
			return err
		}
		return m.get(ctx, path, read)
	}
	return m.forwarded(ctx, path, read)
}

// refusal is a manager's answer other than 200 and errNotLeading.
type refusal struct {
	code int
	text string
}

func (r *refusal) Error() string { return fmt.Sprintf("the manager answers %d: %s", r.code, r.text) }

// forwarded tries the manager's pods in turn, until one leads.
func (m *manager) forwarded(ctx context.Context, path string, read func(io.Reader) error) error {
	if _, err := m.bearer(ctx); err != nil { // before anything is opened
		return err
	}
	pods, err := m.api.CoreV1().Pods(m.options.namespace).List(ctx, metav1.ListOptions{LabelSelector: managerPods})
	if err != nil {
		return fmt.Errorf("listing the manager's pods in namespace %s: %w", m.options.namespace, err)
	}
	noManager := fmt.Errorf("no manager runs in namespace %s: name another one with --operator-namespace",
		m.options.namespace)
	failure := noManager
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil {
			continue
		}
		if err := m.forward(pod.Namespace, pod.Name); err != nil {
			failure = err
			continue
		}
		err := m.get(ctx, path, read)
		if err == nil {
			return nil
		}
		if errors.Is(failure, noManager) || !errors.Is(err, errNotLeading) { // what the leader says counts
			failure = err
		}
		m.disconnect()
	}
	return failure
}

// disconnect closes the connections to a manager.
func (m *manager) disconnect() {
	if m.http != nil {
		m.http.CloseIdleConnections()
	}
	if m.close != nil {
		m.close()
	}
	m.address, m.http, m.close = "", nil, nil
}

// dialAddress makes a client for the given address. A manager on the loopback has a certificate of its own making, as
// behind a tunnel.
func (m *manager) dialAddress() error {
	at, err := url.Parse(m.options.address)
	if err != nil || at.Scheme != "https" || at.Host == "" {
		return usagef("--manager is %q: write https://HOST:PORT", m.options.address)
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS13}
	if ip := net.ParseIP(at.Hostname()); at.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
		settings.InsecureSkipVerify = true //nolint:gosec // no stranger answers on the loopback
	} else if m.options.authority != "" {
		text, err := os.ReadFile(m.options.authority)
		if err != nil {
			return fmt.Errorf("reading --manager-ca: %w", err)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(text) {
			return usagef("--manager-ca %s has no certificate", m.options.authority)
		}
	}
	m.address = strings.TrimSuffix(m.options.address, "/")
	m.http = &http.Client{Timeout: managerTimeout, Transport: &http.Transport{TLSClientConfig: settings}}
	return nil
}

// forward opens a tunnel to a pod of the manager, through the API server and the pod's kubelet, as kubectl port-forward
// does.
func (m *manager) forward(namespace, pod string) error {
	at := m.api.CoreV1().RESTClient().Post().
		Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL()
	round, upgrader, err := spdy.RoundTripperFor(m.config)
	if err != nil {
		return fmt.Errorf("forwarding a port to pod %s: %w", pod, err)
	}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: round}, http.MethodPost, at)
	if tunnel, err := portforward.NewSPDYOverWebsocketDialer(at, m.config); err == nil {
		dialer = portforward.NewFallbackDialer(tunnel, dialer, func(err error) bool { return err != nil })
	}
	stop, ready, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", managerPort)},
		stop, ready, io.Discard, io.Discard)
	if err != nil {
		return fmt.Errorf("forwarding a port to pod %s: %w", pod, err)
	}
	go func() { ended <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		return fmt.Errorf("forwarding a port to pod %s: %w", pod, err)
	case <-time.After(managerTimeout):
		close(stop)
		return fmt.Errorf("forwarding a port to pod %s: no answer within %s", pod, managerTimeout)
	}
	m.close = func() {
		close(stop)
		<-ended //nolint:errcheck // the tunnel is closed on purpose
	}
	ports, err := forwarder.GetPorts()
	if err != nil || len(ports) == 0 {
		m.disconnect()
		return fmt.Errorf("forwarding a port to pod %s: %w", pod, err)
	}
	m.address = fmt.Sprintf("https://127.0.0.1:%d", ports[0].Local)
	settings := &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, //nolint:gosec // the tunnel ends in the pod
	}
	m.http = &http.Client{Timeout: managerTimeout, Transport: &http.Transport{TLSClientConfig: settings}}
	return nil
}

// get makes a request of a manager. The transport asks for compression, and undoes it.
func (m *manager) get(ctx context.Context, path string, read func(io.Reader) error) error {
	token, err := m.bearer(ctx)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.address+path, http.NoBody)
	if err != nil {
		return fmt.Errorf("making a request of the manager: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := m.http.Do(request)
	if err != nil {
		return fmt.Errorf("making a request of the manager: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode == http.StatusOK {
		return read(response.Body)
	}
	const most = 300
	text, _ := io.ReadAll(io.LimitReader(response.Body, most)) // the code says enough
	said := printable(strings.TrimSpace(string(text)))
	if response.StatusCode == http.StatusServiceUnavailable && said == reports.NotLeading {
		return errNotLeading
	}
	return &refusal{response.StatusCode, said}
}

// errNoToken means that the user's credentials cannot be shown to a manager.
var errNoToken = errors.New("the kubeconfig has no token to show the manager, such as with a client certificate: " +
	"name a service account with --service-account")

// errImpersonates means that a manager would see the wrong user.
var errImpersonates = errors.New("a manager knows nothing of --as: name a service account with --service-account")

// bearer returns the token to send.
func (m *manager) bearer(ctx context.Context) (string, error) {
	if m.options.serviceAccount != "" {
		return m.accountToken(ctx)
	}
	if m.config.Impersonate.UserName != "" {
		return "", errImpersonates
	}
	// What the kubeconfig's plugins and files yield is only known to the transport.
	settings, err := m.config.TransportConfig()
	if err != nil {
		return "", fmt.Errorf("reading the kubeconfig's credentials: %w", err)
	}
	recorder := &headerRecorder{}
	round, err := transport.HTTPWrappersForConfig(settings, recorder)
	if err != nil {
		return "", fmt.Errorf("reading the kubeconfig's credentials: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://localhost/", http.NoBody)
	if err != nil {
		return "", fmt.Errorf("reading the kubeconfig's credentials: %w", err)
	}
	_, err = round.RoundTrip(request)
	if token, ok := strings.CutPrefix(recorder.authorization, "Bearer "); ok {
		return token, nil
	}
	if err != nil && !errors.Is(err, errRecorded) {
		return "", fmt.Errorf("reading the kubeconfig's credentials: %w", err)
	}
	return "", errNoToken
}

var errRecorded = errors.New("recorded")

// headerRecorder sends no request, and remembers its credentials.
type headerRecorder struct{ authorization string }

func (h *headerRecorder) RoundTrip(r *http.Request) (*http.Response, error) {
	h.authorization = r.Header.Get("Authorization")
	return nil, errRecorded
}

// accountToken returns a token of the service account.
func (m *manager) accountToken(ctx context.Context) (string, error) {
	if m.token != "" && time.Now().Before(m.renewal) {
		return m.token, nil
	}
	namespace, name, found := strings.Cut(m.options.serviceAccount, "/")
	if !found {
		namespace, name = m.namespace, m.options.serviceAccount
	}
	request := &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](tokenSeconds)},
	}
	answer, err := m.api.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("requesting a token of service account %s/%s: %w", namespace, name, err)
	}
	m.token, m.renewal = answer.Status.Token, time.Now().Add(tokenSeconds*time.Second/2)
	return m.token, nil
}
