package kubectl

import (
	"fmt"
	"os"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sampling"
	"github.com/hlparser/hyperliquid-parser-operator/internal/version"
)

const exitCodes = `
Exit codes: 0 all is well, 1 the command failed, 2 the command line is wrong, 3 a target is bad, the object is stalled
or a loss is not acknowledged, 4 too little is known.`

// Command returns kubectl hlp.
func Command(streams genericiooptions.IOStreams) *cobra.Command {
	r := newRunner(streams)
	return r.command()
}

func (r *runner) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "kubectl-hlp",
		Short: "Watch and steer Hyperliquid parsers",
		Long: `Watch and steer the parsers of HyperliquidParser objects.

Figures come from the operator's manager, through a port that is forwarded to its pod. That takes the right to get
hyperliquidparsers/reports in the object's namespace and to forward ports of the manager's pods. Without it, top and
why show what the object's status has, and say what is missing.`,
		Version:       version.Get().String(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl hlp"},
	}
	root.SetVersionTemplate("{{.DisplayName}} {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.SetIn(r.streams.In)
	root.SetOut(r.streams.Out)
	root.SetErr(r.streams.ErrOut)
	f := root.PersistentFlags()
	r.flags.AddFlags(f)
	f.StringVar(&r.options.namespace, "operator-namespace", "hyperliquid-parser-operator-system",
		"namespace of the manager's pods")
	f.StringVar(&r.options.address, "manager", "",
		"address of the manager's endpoint as https://HOST:PORT, instead of a forwarded port")
	f.StringVar(&r.options.authority, "manager-ca", "",
		"file with the certificates that verify --manager. A manager on the loopback is not verified")
	f.StringVar(&r.options.serviceAccount, "service-account", "",
		"send the manager a token of this service account, as [NAMESPACE/]NAME, for ten minutes. "+
			"Defaults to the token of the kubeconfig")
	root.AddCommand(r.topCommand(), r.whyCommand(), r.tailCommand(), r.rolloutCommand(),
		r.diagnoseCommand())
	for _, a := range actions() {
		root.AddCommand(r.actionCommand(a))
	}
	return root
}

// arguments checks the number of arguments.
func arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := cobra.RangeArgs(least, most)(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

func (r *runner) topCommand() *cobra.Command {
	var s selection
	var o topOptions
	var watch bool
	var sortBy string
	cmd := &cobra.Command{
		Use:   "top [NAME]",
		Short: "Show the targets of an object, or of all objects, the worst first",
		Long: `Show the targets of an object, or of all objects of a namespace, the worst first: also those that do not
answer. A figure that is not known is "-". Rates are over the last minute.
` + exitCodes,
		Args:              arguments(0, 1),
		ValidArgsFunction: r.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			defer r.close()
			if len(args) > 0 {
				s.name = args[0]
				if s.selector != "" || s.all {
					return usagef("write a NAME, or --selector or --all-namespaces")
				}
			}
			return r.top(cmd.Context(), s, sortBy, o, watch)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&watch, "watch", "w", false, "show them again every two seconds")
	f.StringVar(&sortBy, "sort", "verdict", "order: verdict, lag, waiting, written, memory, lost or target")
	f.StringVarP(&s.selector, "selector", "l", "", "label selector of objects")
	f.BoolVarP(&s.all, "all-namespaces", "A", false, "show the objects of all namespaces")
	f.BoolVar(&o.all, "all", false, "show all targets, not only the first 20")
	f.StringVarP(&o.output, "output", "o", "", "wide, json or name. json and name have all targets")
	return cmd
}

func (r *runner) whyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "why NAME [TARGET]",
		Short: "Explain the state of an object, or of one of its targets",
		Long: `Explain the state of an object, or of one of its targets: the verdict and its figures, what waits at which of
the five stages, what the operator does about it, and what is lost.
` + exitCodes,
		Args:              arguments(1, 2),
		ValidArgsFunction: r.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			defer r.close()
			return r.why(cmd.Context(), args[0], append(args, "")[1])
		},
	}
}

func addDryRun(cmd *cobra.Command, into *string) {
	cmd.Flags().StringVar(into, "dry-run", "none",
		"none, or server: the API server checks the change and does not store it")
	cmd.Flags().Lookup("dry-run").NoOptDefVal = "server"
}

func (r *runner) actionCommand(a action) *cobra.Command {
	var dryRun string
	cmd := &cobra.Command{
		Use: a.name + " NAME", Short: a.short, Args: arguments(1, 1), ValidArgsFunction: r.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			dry, err := dryRunOf(dryRun)
			if err != nil {
				return err
			}
			return r.act(cmd.Context(), a, args[0], dry)
		},
	}
	addDryRun(cmd, &dryRun)
	return cmd
}

func (r *runner) rolloutCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "rollout", Short: "Follow, compare and undo rollouts"}
	var timeout time.Duration
	status := &cobra.Command{
		Use: "status NAME", Short: "Wait until every parser has the revision of the spec", Args: arguments(1, 1),
		ValidArgsFunction: r.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.rolloutStatus(cmd.Context(), args[0], timeout)
		},
	}
	status.Flags().DurationVar(&timeout, "timeout", 0, "how long to wait. 0 waits forever")
	history := &cobra.Command{
		Use: "history NAME", Short: "Show the stored revisions, newest first, and what each of them changed",
		Args: arguments(1, 1), ValidArgsFunction: r.complete,
		RunE: func(cmd *cobra.Command, args []string) error { return r.rolloutHistory(cmd.Context(), args[0]) },
	}
	var dryRun string
	var number int64
	undo := &cobra.Command{
		Use: "undo NAME", Short: "Set the fields that shape parsers back to those of a revision",
		Long: `Set the fields of the spec that shape parsers back to those of a revision. All others stay: the selection of
targets, growth, rollout and paused. The operator rolls the revision out as any other change, with its canaries.`,
		Args: arguments(1, 1), ValidArgsFunction: r.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			dry, err := dryRunOf(dryRun)
			if err != nil {
				return err
			}
			return r.rolloutUndo(cmd.Context(), args[0], number, dry)
		},
	}
	undo.Flags().Int64Var(&number, "to-revision", 0, "number of the revision. 0 is the one before that of the spec")
	addDryRun(undo, &dryRun)
	cmd.AddCommand(status, history, undo)
	return cmd
}

func (r *runner) tailCommand() *cobra.Command {
	o := tailOptions{count: sampling.DefaultRecords}
	cmd := &cobra.Command{
		Use:   "tail NAME TARGET",
		Short: "Show a sample of the records that the parser of a target delivers now",
		Long: fmt.Sprintf(`Show a sample of the records that the parser of a target delivers now, as JSON lines. The parser
collects it for one second at a time: a few records, and at most %d KiB of them. What it left out is counted on standard
error. A record longer than %d KiB is cut: an object with its beginning takes its place.

It takes the right to get hyperliquidparsers/samples, the ClusterRole samples-reader, and to forward ports of the
manager's pods. It slows no parser down, and changes nothing that is delivered.

Exit codes: 0 records were shown, 1 the command failed, 2 the command line is wrong, 4 no record came.`,
			sampling.MaxBytes>>10, sampling.MaxRecordBytes>>10),
		Args:              arguments(2, 2),
		ValidArgsFunction: r.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			defer r.close()
			o.counted = cmd.Flags().Changed("count")
			return r.tail(cmd.Context(), args[0], args[1], o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.filter.Stream, "stream", "", "show the records of this stream only, such as fills")
	f.StringVar(&o.filter.Coin, "coin", "",
		"show only records whose member coin has this value, such as BTC, or begins so, such as xyz:*")
	f.IntVar(&o.count, "count", o.count, "end after this many records, 1 to 10000")
	f.BoolVarP(&o.follow, "follow", "f", false, "go on until --for is over, or --count is reached if it is set")
	f.DurationVar(&o.time, "for", time.Minute, "longest time to wait for records, at most 10m")
	f.IntVar(&o.filter.Records, "rate", sampling.DefaultRecords,
		fmt.Sprintf("greatest number of records per second, 1 to %d", sampling.MaxRecords))
	_ = cmd.RegisterFlagCompletionFunc("stream", // the flag exists
		func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			out := make([]string, 0, len(config.Streams()))
			for _, s := range config.Streams() {
				out = append(out, s.Kebab())
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		})
	return cmd
}

func (r *runner) diagnoseCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "diagnose NAME [TARGET]", Short: "Write a bundle for those who help: what is wrong, and all that shows it",
		Long: `Write a bundle for those who help, as a tar.gz file: README.txt with what is wrong, the object, its revisions,
pods, events and reports, the manager's metrics and stacks, and those of the parsers of TARGET and of the worst targets,
with the last lines of their logs. It has no Secrets and no records: the logs of parsers that write records to standard
output are left out, and so are excerpts of malformed lines in others. Names of files and texts of sinks' errors are in
it: read it before you pass it on.`,
		Args: arguments(1, 2), ValidArgsFunction: r.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			defer r.close()
			return r.diagnose(cmd.Context(), args[0], append(args, "")[1], file)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "",
		`name of the file; "-" is standard output. Defaults to NAME-TIME.tar.gz`)
	return cmd
}

// complete completes the name of an object, and then that of one of its targets.
func (r *runner) complete(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	api, namespace, err := r.client()
	if err != nil || len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	if len(args) == 0 {
		var list v1alpha1.HyperliquidParserList
		if api.List(cmd.Context(), &list, client.InNamespace(namespace)) == nil {
			for i := range list.Items {
				out = append(out, list.Items[i].Name)
			}
		}
	} else if cmd.Name() == "why" || cmd.Name() == "tail" || cmd.Name() == "diagnose" {
		var pods corev1.PodList
		err := api.List(cmd.Context(), &pods, client.InNamespace(namespace),
			client.MatchingLabels{v1alpha1.LabelParser: args[0]})
		if err == nil {
			for i := range pods.Items {
				out = append(out, pods.Items[i].Annotations[v1alpha1.AnnotationTarget])
			}
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// Main runs kubectl hlp with the process's arguments, and returns its exit code.
func Main() int {
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	klog.SetLogger(logr.Discard()) // what fails is an error of the command, or what it says is missing
	cmd, err := Command(streams).ExecuteContextC(interrupted())
	code := Exit(err, streams.ErrOut)
	if code == ExitUsage {
		say(streams.ErrOut, "See '%s --help'.\n", cmd.CommandPath())
	}
	return code
}
