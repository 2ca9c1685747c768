// Package kubectl is kubectl hlp: it shows what fleets do and why, and carries out the few changes that a person makes
// by hand. What is shown is a pure function of what was read; reading and writing are at the edges.
//
// The package must never show a figure that nobody has measured: what is not known is absent. It must never read a
// Secret, never read a record but to show it at once, as tail does, never change an object without being asked, and
// never decide what the operator decides.
package kubectl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// interval is the time between two reads of a command that watches.
const interval = 2 * time.Second

// usageError marks an error of the command line.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitError ends the program with a code, and without a message.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// say writes to a terminal or a pipe. Nobody could read that it is closed.
func say(to io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(to, format, args...) }

// Exit writes an error of a command as kubectl does, and returns the exit code that follows from it.
func Exit(err error, to io.Writer) int {
	var code exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	say(to, "error: %v\n", err)
	if errors.As(err, new(usageError)) {
		return ExitUsage
	}
	return ExitFailure
}

// runner carries out commands.
type runner struct {
	flags   *genericclioptions.ConfigFlags
	streams genericiooptions.IOStreams
	options managerOptions

	now func() time.Time
	// wait waits for a while, and reports whether the context lasts.
	wait func(context.Context, time.Duration) bool

	reader *manager // of reports; made when it is first needed
}

func newRunner(streams genericiooptions.IOStreams) *runner {
	return &runner{
		flags: genericclioptions.NewConfigFlags(true).WithWarningPrinter(streams), streams: streams, now: time.Now,
		wait: func(ctx context.Context, d time.Duration) bool {
			select {
			case <-time.After(d):
				return true
			case <-ctx.Done():
				return false
			}
		},
	}
}

// screen returns how text is shown on the output: in colour and cut at the window on a terminal.
func (r *runner) screen() screen {
	file, ok := r.streams.Out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return screen{}
	}
	width, height, err := term.GetSize(int(file.Fd()))
	if err != nil {
		width, height = 0, 0
	}
	return screen{width: width, height: height, colour: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// namespace returns the namespace of the command line.
func (r *runner) namespace() (string, error) {
	namespace, _, err := r.flags.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return "", fmt.Errorf("reading the kubeconfig: %w", err)
	}
	return namespace, nil
}

// client returns a client of the API server, and the namespace of the command line.
func (r *runner) client() (client.Client, string, error) {
	namespace, err := r.namespace()
	if err != nil {
		return nil, "", err
	}
	config, err := r.flags.ToRESTConfig()
	if err != nil {
		return nil, "", fmt.Errorf("reading the kubeconfig: %w", err)
	}
	scheme := runtime.NewScheme()
	err = errors.Join(v1alpha1.AddToScheme(scheme), corev1.AddToScheme(scheme), appsv1.AddToScheme(scheme))
	if err != nil {
		return nil, "", fmt.Errorf("registering kinds: %w", err)
	}
	api, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, "", fmt.Errorf("creating a client of the API server: %w", err)
	}
	return api, namespace, nil
}

// manager returns the reader of reports.
func (r *runner) manager(namespace string) (*manager, error) {
	if r.reader != nil {
		return r.reader, nil
	}
	config, err := r.flags.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("creating a client of the API server: %w", err)
	}
	r.reader = &manager{options: r.options, config: config, api: api, namespace: namespace}
	return r.reader, nil
}

// close ends what the runner holds open.
func (r *runner) close() {
	if r.reader != nil {
		r.reader.disconnect()
	}
}

// selection says which objects are read.
type selection struct {
	name     string // empty: all that match
	selector string // of their labels
	all      bool   // in all namespaces
	targets  []string
	samples  bool
}

// fleets reads the objects of a selection, with what the manager serves of them.
func (r *runner) fleets(ctx context.Context, s selection) ([]fleet, error) {
	api, namespace, err := r.client()
	if err != nil {
		return nil, err
	}
	var objects []v1alpha1.HyperliquidParser
	if s.name != "" {
		var obj v1alpha1.HyperliquidParser
		if err := api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: s.name}, &obj); err != nil {
			return nil, fmt.Errorf("getting HyperliquidParser %s/%s: %w", namespace, s.name, err)
		}
		objects = append(objects, obj)
	} else {
		selector, err := labels.Parse(s.selector)
		if err != nil {
			return nil, usagef("--selector is %q: %w", s.selector, err)
		}
		options := []client.ListOption{client.MatchingLabelsSelector{Selector: selector}}
		if !s.all {
			options = append(options, client.InNamespace(namespace))
		}
		var list v1alpha1.HyperliquidParserList
		if err := api.List(ctx, &list, options...); err != nil {
			return nil, fmt.Errorf("listing HyperliquidParsers: %w", err)
		}
		objects = list.Items
	}
	out := make([]fleet, 0, len(objects))
	for i := range objects {
		f, err := r.fleet(ctx, api, &objects[i], s)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

// fleet reads what is known of an object. Without the manager it is what the object's status and pods show.
func (r *runner) fleet(ctx context.Context, api client.Client, obj *v1alpha1.HyperliquidParser, s selection) (
	fleet, error,
) {
	f := fleet{object: obj, now: r.now()}
	var pods corev1.PodList
	err := api.List(ctx, &pods, client.InNamespace(obj.Namespace), client.MatchingLabels{v1alpha1.LabelParser: obj.Name})
	if err != nil {
		f.missing = fmt.Sprintf("pods cannot be listed: %v", err)
	}
	f.pods = slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
	m, err := r.manager(obj.Namespace)
	if err != nil {
		return f, err
	}
	head, targets, err := m.read(ctx, obj.Namespace, obj.Name, s.targets, s.samples)
	switch {
	case errors.As(err, new(usageError)), ctx.Err() != nil:
		return f, err
	case err != nil:
		f.missing = strings.TrimPrefix(f.missing+"; "+err.Error(), "; ")
	default:
		f.targets, f.now = targets, cmp.Or(head.Now, f.now)
	}
	return f, nil
}

// top shows the rows of a selection, once or until the context ends.
func (r *runner) top(ctx context.Context, s selection, sortBy string, o topOptions, watch bool) error {
	if err := sortRows(nil, sortBy); err != nil { // before anything is read
		return err
	}
	o.objects = s.name == ""
	for {
		fleets, err := r.fleets(ctx, s)
		if ctx.Err() != nil && watch {
			return nil
		}
		if err != nil {
			return err
		}
		var rows []row
		for i := range fleets {
			rows = append(rows, rowsOf(&fleets[i])...)
		}
		if err := sortRows(rows, sortBy); err != nil {
			return err
		}
		screen := r.screen()
		if !watch {
			screen.height = 0
		}
		text, err := renderTop(screen, fleets, rows, o)
		if err != nil {
			return err
		}
		if watch && screen.height > 0 {
			// From the first line on, each line to its end, and what is below: nothing flickers.
			text = "\x1b[H" + strings.ReplaceAll(text, "\n", "\x1b[K\n") + "\x1b[J"
		}
		say(r.streams.Out, "%s", text)
		if len(fleets) == 0 && o.output != "json" {
			say(r.streams.ErrOut, "No HyperliquidParsers found.\n")
		}
		if !watch {
			if code := healthOf(fleets, rows); code != 0 {
				return exitError(code)
			}
			return nil
		}
		if !r.wait(ctx, interval) {
			return nil
		}
		if screen.height == 0 {
			say(r.streams.Out, "\n")
		}
	}
}

// why shows why an object, or one of its targets, is as it is.
func (r *runner) why(ctx context.Context, name, target string) error {
	s := selection{name: name}
	if target != "" {
		s.targets, s.samples = []string{target}, true
	}
	fleets, err := r.fleets(ctx, s)
	if err != nil {
		return err
	}
	text, err := renderWhy(r.screen(), &fleets[0], target)
	if err != nil {
		return err
	}
	say(r.streams.Out, "%s", text)
	if code := codeOfWhy(&fleets[0], target); code != 0 {
		return exitError(code)
	}
	return nil
}

// codeOfWhy returns the exit code of why: that of the object, or of one target.
func codeOfWhy(f *fleet, target string) int {
	rows := rowsOf(f)
	if target == "" {
		return healthOf([]fleet{*f}, rows)
	}
	return healthOfRows(slices.DeleteFunc(rows, func(r row) bool { return r.Target != target }))
}
