package kubectl

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
)

const (
	// mostLogs bounds the pods whose logs, stacks and metrics are in a bundle, the worst first; logLines and logBytes
	// bound each log.
	mostLogs = 10
	logLines = 500
	logBytes = 1 << 20
	// metricsBytes bounds the manager's metrics. inspectTime bounds the time for all stacks and metrics.
	metricsBytes = 8 << 20
	inspectTime  = time.Minute
)

// bundle is a tar.gz file that is being made. The zero time of its files makes it depend on its content alone.
type bundle struct {
	tar *tar.Writer
	dir string
	at  time.Time
}

func (b *bundle) add(name string, content []byte) error {
	header := &tar.Header{
		Typeflag: tar.TypeReg, Name: path.Join(b.dir, name), Mode: 0o644, Size: int64(len(content)), ModTime: b.at,
	}
	if err := b.tar.WriteHeader(header); err != nil {
		return fmt.Errorf("writing %s of the bundle: %w", name, err)
	}
	if _, err := b.tar.Write(content); err != nil {
		return fmt.Errorf("writing %s of the bundle: %w", name, err)
	}
	return nil
}

// document is a file of a bundle.
type document struct {
	name    string
	content []byte
}

// diagnose writes a bundle about an object to a file. What a target's parser does is in it, if one is named.
func (r *runner) diagnose(ctx context.Context, name, target, file string) (err error) {
	fleets, err := r.fleets(ctx, selection{name: name, samples: true})
	if err != nil {
		return err
	}
	f := &fleets[0]
	now := r.now().UTC().Truncate(time.Second)
	dir := fmt.Sprintf("%s-%s", f.object.Name, now.Format("20060102-150405"))
	if target != "" && !slices.ContainsFunc(rowsOf(f), func(r row) bool { return r.Target == target }) {
		return fmt.Errorf("%s has no target %s", name, target)
	}
	documents, missing := r.collect(ctx, f, target)
	readme, err := renderReadme(f, documents, missing, now)
	if err != nil {
		return err
	}
	out := r.streams.Out
	if file != "-" {
		file = cmp.Or(file, dir+".tar.gz")
		// It may quote what others must not read.
		created, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("creating the bundle: %w", err)
		}
		defer func() { err = errors.Join(err, created.Close()) }()
		out = created
	}
	packed := gzip.NewWriter(out)
	b := &bundle{tar: tar.NewWriter(packed), dir: dir, at: now}
	for _, d := range append([]document{{"README.txt", []byte(readme)}}, documents...) {
		if err := b.add(d.name, d.content); err != nil {
			return err
		}
	}
	if err := errors.Join(b.tar.Close(), packed.Close()); err != nil {
		return fmt.Errorf("writing the bundle: %w", err)
	}
	if file != "-" {
		say(r.streams.Out, "%s\n", file)
	}
	return nil
}

// renderReadme returns the first file of a bundle: what is wrong, what it holds, and what is missing.
func renderReadme(f *fleet, documents []document, missing []string, now time.Time) (string, error) {
	const width = 120
	s := screen{width: width}
	why, err := renderWhy(s, f, "")
	if err != nil {
		return "", err
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s, %s\n\n%s", f.object.Name, now.Format(time.RFC3339), why)
	rows := rowsOf(f)
	_ = sortRows(rows, "verdict") // the order exists
	s.section(&out, "All targets")
	if len(rows) > 0 {
		out.WriteString(s.topTable([]fleet{*f}, rows, topOptions{}))
	}
	s.section(&out, "Files")
	for _, d := range documents {
		fmt.Fprintf(&out, "  %s\n", d.name)
	}
	if len(missing) > 0 {
		s.section(&out, "Not in this bundle")
		for _, text := range missing {
			s.text(&out, text)
		}
	}
	return out.String(), nil
}

// collect reads the documents of a bundle, and says what it could not read.
func (r *runner) collect(ctx context.Context, f *fleet, target string) (documents []document, missing []string) {
	add := func(name string, object any) {
		text, err := yaml.Marshal(object)
		if err != nil {
			missing = append(missing, fmt.Sprintf("%s: %v", name, err))
			return
		}
		documents = append(documents, document{name, text})
	}
	object := f.object.DeepCopy()
	object.ManagedFields = nil
	add("object.yaml", object)
	api, _, err := r.client()
	if err != nil {
		return documents, append(missing, err.Error())
	}
	var revisions appsv1.ControllerRevisionList
	err = api.List(ctx, &revisions, client.InNamespace(object.Namespace),
		client.MatchingLabels{v1alpha1.LabelParser: object.Name})
	if err != nil {
		missing = append(missing, fmt.Sprintf("revisions: %v", err))
	}
	for i := range revisions.Items {
		revisions.Items[i].ManagedFields = nil
	}
	add("revisions.yaml", revisions.Items)
	pods := make([]corev1.Pod, 0, len(f.pods))
	for i := range f.pods {
		pod := f.pods[i].DeepCopy()
		pod.ManagedFields = nil
		pods = append(pods, *pod)
	}
	add("pods.yaml", pods)
	if f.targets != nil {
		var lines bytes.Buffer
		encode := json.NewEncoder(&lines)
		for i := range f.targets {
			if err := encode.Encode(&f.targets[i]); err != nil {
				missing = append(missing, fmt.Sprintf("reports: %v", err))
			}
		}
		documents = append(documents, document{"reports.jsonl", lines.Bytes()})
	} else {
		missing = append(missing, "reports: "+f.missing)
	}
	shown := worst(f, target)
	of, not := r.inspect(ctx, f, shown)
	documents, missing = append(documents, of...), append(missing, not...)
	config, err := r.flags.ToRESTConfig()
	if err != nil {
		return documents, append(missing, err.Error())
	}
	core, err := kubernetes.NewForConfig(config)
	if err != nil {
		return documents, append(missing, err.Error())
	}
	text, err := eventsOf(ctx, core, f)
	if err != nil {
		missing = append(missing, fmt.Sprintf("events: %v", err))
	}
	documents = append(documents, document{"events.txt", []byte(text)})
	if writesToStdout(f.object) {
		return documents, append(missing, "logs: the parsers write records to standard output, which is in their logs")
	}
	for i := range shown {
		pod := shown[i].Pod
		log, err := logOf(ctx, core, f.object.Namespace, pod)
		if err != nil {
			missing = append(missing, fmt.Sprintf("the log of %s: %v", pod, err))
			continue
		}
		documents = append(documents, document{"logs/" + pod + ".log", withoutExcerpts(log)})
	}
	return documents, missing
}

// writesToStdout reports whether parsers of the object may write records to standard output. A log has both of a
// container's streams.
func writesToStdout(obj *v1alpha1.HyperliquidParser) bool {
	return obj.Spec.Sink.Stdout != nil || slices.ContainsFunc(obj.Spec.Sinks, func(s v1alpha1.NamedSink) bool {
		return s.Stdout != nil
	})
}

// worst returns the targets whose parsers a bundle shows in detail: the named one, the worst ones, and two good ones to
// compare with.
func worst(f *fleet, target string) (out []row) {
	rows := rowsOf(f)
	_ = sortRows(rows, "verdict") // the order exists
	slices.SortStableFunc(rows, func(a, b row) int {
		return cmp.Compare(named(b.Target == target), named(a.Target == target))
	})
	good := 0
	for i := range rows {
		r := &rows[i]
		if r.Target != target && !health.Verdict(r.Verdict).Bad() {
			const toCompare = 2
			if good++; good > toCompare {
				continue
			}
		}
		if r.Pod != "" && len(out) < mostLogs {
			out = append(out, *r)
		}
	}
	return out
}

// named orders a target that the user names before others.
func named(is bool) int {
	if is {
		return 1
	}
	return 0
}

// inspect reads what the manager and some parsers do: their stacks and metrics.
func (r *runner) inspect(ctx context.Context, f *fleet, shown []row) (documents []document, missing []string) {
	object := f.object
	m, err := r.manager(object.Namespace)
	if err != nil {
		return nil, []string{"stacks and metrics: " + err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, inspectTime)
	defer cancel()
	d, err := m.diagnosis(ctx, object.Namespace, object.Name, "")
	if err != nil {
		return nil, []string{"stacks and metrics: " + err.Error()}
	}
	documents = append(documents, document{"stacks/manager.txt", []byte(d.Stacks)})
	metrics, err := m.metrics(ctx, metricsBytes)
	if err != nil {
		missing = append(missing, "the manager's metrics: "+err.Error())
	} else {
		documents = append(documents, document{"metrics/manager.txt", ofNamespace(metrics, object.Namespace)})
	}
	for i := range shown {
		pod := shown[i].Pod
		d, err := m.diagnosis(ctx, object.Namespace, object.Name, shown[i].Target)
		if err != nil {
			missing = append(missing, fmt.Sprintf("stacks and metrics of %s: %v", pod, err))
			continue
		}
		for _, part := range []document{{"stacks/", []byte(d.Stacks)}, {"metrics/", []byte(d.Metrics)}} {
			if len(part.content) > 0 {
				documents = append(documents, document{part.name + pod + ".txt", part.content})
			}
		}
		for _, text := range d.Missing {
			missing = append(missing, fmt.Sprintf("of %s: %s", pod, printable(text)))
		}
	}
	return documents, missing
}

// namespaceLabel matches the label that names an object's namespace in a metric.
var namespaceLabel = regexp.MustCompile(`[{,]namespace="((?:[^"\\]|\\.)*)"`)

// ofNamespace returns the metrics that are about objects of a namespace, or about none.
func ofNamespace(metrics []byte, namespace string) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(metrics) {
		label := namespaceLabel.FindSubmatch(line)
		if label == nil || string(label[1]) == namespace {
			out.Write(line)
		}
	}
	return out.Bytes()
}

// excerpt matches what a parser logs of a malformed line.
var excerpt = regexp.MustCompile(`\bexcerpt=("(?:[^"\\\n]|\\.)*"?|\S*)`)

// withoutExcerpts removes parts of records from a log.
func withoutExcerpts(log []byte) []byte { return excerpt.ReplaceAll(log, []byte("excerpt=(left out)")) }

func logOf(ctx context.Context, api kubernetes.Interface, namespace, pod string) ([]byte, error) {
	stream, err := api.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{
		Container: v1alpha1.ContainerName, TailLines: ptr.To[int64](logLines), LimitBytes: ptr.To[int64](logBytes),
		Timestamps: true,
	}).Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = stream.Close() }()
	return io.ReadAll(io.LimitReader(stream, logBytes))
}

// eventsOf returns the events of an object, its pods included, oldest first.
func eventsOf(ctx context.Context, api kubernetes.Interface, f *fleet) (string, error) {
	list, err := api.CoreV1().Events(f.object.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	return renderEvents(f, list.Items), nil
}

// renderEvents returns the events that are about an object or its pods, oldest first.
func renderEvents(f *fleet, events []corev1.Event) string {
	own := map[string]bool{"HyperliquidParser/" + f.object.Name: true}
	for i := range f.pods {
		own["Pod/"+f.pods[i].Name] = true
	}
	at := func(e *corev1.Event) time.Time {
		switch {
		case e.Series != nil:
			return e.Series.LastObservedTime.Time
		case !e.LastTimestamp.IsZero():
			return e.LastTimestamp.Time
		case !e.EventTime.IsZero():
			return e.EventTime.Time
		}
		return e.CreationTimestamp.Time
	}
	slices.SortStableFunc(events, func(a, b corev1.Event) int { return at(&a).Compare(at(&b)) })
	var out strings.Builder
	for i := range events {
		e := &events[i]
		what := e.InvolvedObject.Kind + "/" + e.InvolvedObject.Name
		if own[what] {
			fmt.Fprintf(&out, "%s %s %s %s: %s\n", at(e).UTC().Format(time.RFC3339), e.Type, what, e.Reason,
				printable(e.Message))
		}
	}
	return out.String()
}
