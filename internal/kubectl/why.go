package kubectl

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/reports"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// renderWhy returns what is known of an object, or of one of its targets, and why it is so.
func renderWhy(s screen, f *fleet, target string) (string, error) {
	rows := rowsOf(f)
	var out strings.Builder
	out.WriteString(s.headline(f))
	if target == "" {
		s.whyObject(&out, f, rows)
	} else {
		i := slices.IndexFunc(rows, func(r row) bool { return r.Target == target })
		if i < 0 {
			return "", fmt.Errorf("%s has no target %q with a parser", f.object.Name, target)
		}
		s.whyTarget(&out, f, &rows[i])
	}
	s.losses(&out, f, target)
	if f.missing != "" {
		s.section(&out, "Missing")
		s.text(&out, "figures, stages and the verdicts of targets that are not bad: "+f.missing)
	}
	return out.String(), nil
}

func (s screen) section(out *strings.Builder, title string) {
	fmt.Fprintf(out, "\n%s\n", s.paint(title, bold))
}

// text writes a line, indented and wrapped at the width.
func (s screen) text(out *strings.Builder, text string) {
	const indent = "  "
	line := indent
	for word := range strings.FieldsSeq(printable(text)) {
		if s.width > 0 && len(line) > len(indent) && len([]rune(line))+1+len([]rune(word)) > s.width {
			fmt.Fprintln(out, line)
			line = indent
		}
		if len(line) > len(indent) {
			line += " "
		}
		line += word
	}
	fmt.Fprintln(out, line)
}

func (s screen) whyObject(out *strings.Builder, f *fleet, rows []row) {
	s.section(out, "Conditions")
	for i := range f.object.Status.Conditions {
		c := &f.object.Status.Conditions[i]
		s.text(out, fmt.Sprintf("%s is %s for %s: %s: %s", c.Type, strings.ToLower(string(c.Status)),
			since(c.LastTransitionTime.Time, f.now), c.Reason, c.Message))
	}
	count := map[string]int{}
	for i := range rows {
		verdict := rows[i].Verdict
		if verdict == "" {
			verdict = "not known"
		}
		count[verdict]++
	}
	s.section(out, "Targets")
	for _, verdict := range append(verdictNames(), "not known") {
		if n := count[verdict]; n > 0 {
			s.text(out, fmt.Sprintf("%d %s", n, verdict))
		}
	}
	if text := without(f, len(rows)); text != "" {
		s.text(out, text)
	}
	_ = sortRows(rows, "verdict") // the order exists
	const most = 5
	for i := range rows[:min(len(rows), most)] {
		r := &rows[i]
		if !health.Verdict(r.Verdict).Bad() {
			break
		}
		s.section(out, r.Target)
		s.text(out, fmt.Sprintf("%s for %s: %s", verdictOf(r), since(r.Since, f.now), r.Message))
		s.text(out, "The operator "+response(f.object, r)+".")
	}
}

func verdictNames() (names []string) {
	for _, v := range health.Verdicts() {
		names = append(names, string(v))
	}
	return names
}

// verdictOf returns a verdict with its reason.
func verdictOf(r *row) string {
	switch {
	case r.Verdict == "":
		return "no verdict is known"
	case r.Reason == "":
		return r.Verdict
	}
	return printable(r.Verdict + " (" + r.Reason + ")")
}

func (s screen) whyTarget(out *strings.Builder, f *fleet, r *row) {
	s.section(out, r.Target+"  "+s.paint(verdictOf(r), colourOf(r.Verdict, r.Fading)))
	if r.Message != "" {
		s.text(out, fmt.Sprintf("for %s: %s", since(r.Since, f.now), r.Message))
	}
	if r.Fading {
		s.text(out, "The newest report no longer shows it. It is over after twelve such reports in a row.")
	}
	switch {
	case r.NoReport == "":
	case r.ReportAt.IsZero():
		s.text(out, "no report of this pod: "+r.NoReport)
	default:
		s.text(out, "no newer report: "+r.NoReport)
	}
	if r.Pod != "" {
		s.text(out, "parser: pod "+r.Pod)
	}
	i := slices.IndexFunc(f.targets, func(t reports.Target) bool { return t.Target == r.Target })
	if i >= 0 {
		s.figures(out, f, &f.targets[i])
	}
	s.section(out, "What the operator does")
	s.text(out, "It "+response(f.object, r)+".")
	for _, kind := range []string{v1alpha1.ConditionStalled, v1alpha1.ConditionReconciling} {
		if c := meta.FindStatusCondition(f.object.Status.Conditions, kind); c != nil && c.Status == metav1.ConditionTrue {
			s.text(out, fmt.Sprintf("%s: %s", c.Reason, c.Message))
		}
	}
}

// figures writes the figures of a report, stream by stream.
func (s screen) figures(out *strings.Builder, f *fleet, t *reports.Target) {
	if t.Shows != nil && t.Shows.Verdict != t.Verdict {
		s.text(out, fmt.Sprintf("the newest poll shows %s %s", t.Shows.Verdict, t.Shows.Message))
	}
	for _, a := range t.Alerts {
		s.text(out, fmt.Sprintf("%s for %s: %s", a.Alert, since(a.Since, f.now), a.Message))
	}
	if t.Report == nil {
		return
	}
	p := &t.Report.Process
	memory := "memory " + bytesOf(p.RSSBytes)
	if p.MemoryLimitBytes > 0 {
		memory += " of " + bytesOf(&p.MemoryLimitBytes)
	}
	s.text(out, fmt.Sprintf("%s, running for %s, report %s ago, %s", memory,
		since(t.Report.StartedAt, t.Report.Now), since(t.At, f.now), printable(t.Report.Version)))
	for i := range t.Report.Streams {
		s.stream(out, t, &t.Report.Streams[i])
	}
}

// stage is one of the five that a line passes.
type stage struct {
	name  string
	total *int64 // bytes of the node's lines since the process started
	rate  *float64
	line  string // a sparkline of the last minute
	waits string // what waits after it
}

// stream writes a stream with its five stages.
func (s screen) stream(out *strings.Builder, t *reports.Target, from *report.Stream) {
	s.section(out, fmt.Sprintf("%s  %s, %s", printable(from.Name), printable(from.Mode), printable(string(from.State))))
	if from.Message != "" {
		s.text(out, from.Message)
	}
	stages := stagesOf(t, from)
	rows := make([][]cell, 0, 1+len(stages))
	rows = append(rows,
		[]cell{{text: "  STAGE"}, {text: "TOTAL"}, {text: "RATE"}, {text: "MINUTE"}, {text: "WAITS AFTER IT"}})
	for _, stage := range stages {
		rows = append(rows, []cell{{text: "  " + stage.name}, {text: bytesOf(stage.total)}, {text: rateOf(stage.rate)},
			{text: stage.line}, {text: stage.waits}})
	}
	out.WriteString(s.table(rows, map[int]bool{1: true, 2: true}))
	lag := "oldest line that is not acknowledged: " + secondsOf(from.LagSeconds) + " old"
	if from.LagSeconds == nil {
		lag = "how old the oldest line is that is not acknowledged is not known"
	}
	s.text(out, lag)
	sink := "sink " + string(from.Sink.State)
	if from.Sink.Since != nil {
		sink += " for " + since(*from.Sink.Since, t.Report.Now)
	}
	if from.Sink.LastAckAt != nil {
		sink += ", last acknowledgement " + since(*from.Sink.LastAckAt, t.Report.Now) + " ago"
	} else {
		sink += ", nothing acknowledged yet"
	}
	if from.Sink.LastError != "" {
		sink += ": " + from.Sink.LastError
	}
	s.text(out, sink)
	if b := from.Blocked; b != nil {
		s.text(out, fmt.Sprintf("cannot read %s: %s", b.Path, b.Error))
	}
	if from.SkippedBytesTotal > 0 || from.PrunedUnreadTotal > 0 || from.BlockGapsTotal > 0 {
		s.text(out, fmt.Sprintf("lost since the process started: %s of lines, %s, %s", bytesOf(&from.SkippedBytesTotal),
			plural(int(from.PrunedUnreadTotal), "file"), plural(int(from.BlockGapsTotal), "block")))
	}
	if from.MalformedTotal > 0 {
		s.text(out, fmt.Sprintf("malformed since the process started: %d", from.MalformedTotal))
	}
}

// stagesOf returns the five stages of a stream.
func stagesOf(t *reports.Target, from *report.Stream) []stage {
	read, parsed, acked, committed := from.ReadBytesTotal, from.ParsedBytesTotal, from.AckedBytesTotal,
		from.CommittedBytesTotal
	stages := []stage{
		{name: "written"}, {name: "read", total: &read}, {name: "processed", total: &parsed},
		{name: "acknowledged", total: &acked}, {name: "committed", total: &committed},
	}
	if from.UncommittedBytes != nil {
		written := from.CommittedBytesTotal + *from.UncommittedBytes + from.SkippedBytesTotal
		stages[0].total = &written
		// What is not committed is on disk and not read yet, in memory, or acknowledged alone.
		stages[0].waits = waiting(*from.UncommittedBytes-max(read-committed, 0), "on disk")
	}
	stages[1].waits = waiting(from.BufferBytes, "in the buffer")
	stages[2].waits = waiting(from.InFlightBytes, "in flight")
	stages[3].waits = waiting(acked-committed, "for a commit")
	for i := range t.Rates {
		if r := &t.Rates[i]; r.Stream == from.Name {
			stages[0].rate, stages[3].rate = &r.Written, &r.Acked
		}
	}
	var written, sent, waits []float64
	var last *reports.Sample
	for i := range t.Samples {
		sample := &t.Samples[i]
		if sample.Stream != from.Name {
			continue
		}
		waits = append(waits, float64(sample.Uncommitted))
		if last != nil && sample.At.After(last.At) {
			span := sample.At.Sub(last.At).Seconds()
			written = append(written, math.Max(float64(sample.Written-last.Written), 0)/span)
			sent = append(sent, math.Max(float64(sample.Acked-last.Acked), 0)/span)
		}
		last = sample
	}
	stages[0].line, stages[3].line = sparkline(written), sparkline(sent)
	if line := sparkline(waits); line != "" {
		stages[4].waits = "not committed: " + bytesOf(from.UncommittedBytes) + " " + line
	} else if from.UncommittedBytes != nil {
		stages[4].waits = "not committed: " + bytesOf(from.UncommittedBytes)
	}
	return stages
}

// waiting describes what waits after a stage; "" for nothing.
func waiting(bytes int64, where string) string {
	if bytes <= 0 {
		return ""
	}
	return bytesOf(&bytes) + " " + where
}

// response returns what the operator does about a target: the predicate of a sentence.
func response(obj *v1alpha1.HyperliquidParser, r *row) string {
	verdict := health.Verdict(r.Verdict)
	is := func(reason string) string {
		for _, kind := range []string{v1alpha1.ConditionBuffersStable, v1alpha1.ConditionDelivering} {
			c := meta.FindStatusCondition(obj.Status.Conditions, kind)
			if c != nil && c.Status == metav1.ConditionFalse && c.Reason == reason {
				return c.Message
			}
		}
		return ""
	}
	switch {
	case r.Verdict == "":
		return "has said nothing about it in the status, which lists the worst twenty targets"
	case !verdict.Bad():
		return "has nothing to do"
	case !verdict.Restartable():
		return "reports it and restarts nothing, because a restart does not cure " + r.Verdict
	case r.Fading:
		return "waits whether it is over"
	case obj.Spec.Paused:
		return "restarts nothing while spec.paused is set"
	case obj.Spec.Growth.Action == v1alpha1.GrowthActionAlert:
		return "reports it and restarts nothing, because growth.action is Alert"
	}
	for _, reason := range []string{v1alpha1.ReasonFleetWide, v1alpha1.ReasonRestartLimit,
		v1alpha1.ReasonRestartIneffective} {
		if text := is(reason); text != "" {
			return "holds restarts back, " + reason + ": " + text
		}
	}
	return "restarts the parser, within growth.restart and rollout.maxUnavailable"
}

// losses writes what consumers lack.
func (s screen) losses(out *strings.Builder, f *fleet, target string) {
	st := &f.object.Status
	var lines []string
	for i := range st.Losses {
		l := &st.Losses[i]
		if target != "" && l.Target != target {
			continue
		}
		text := fmt.Sprintf("%s on %s since %s", l.Reason, l.Target, l.Since.UTC().Format(time.RFC3339))
		var parts []string
		if l.SkippedBytes > 0 {
			parts = append(parts, bytesOf(&l.SkippedBytes)+" of lines never read")
		}
		if l.PrunedFiles > 0 {
			parts = append(parts, plural(int(l.PrunedFiles), "file")+" deleted before they were read")
		}
		if l.MissingBlocks > 0 {
			parts = append(parts, plural(int(l.MissingBlocks), "block")+" left out by the node")
		}
		if len(parts) > 0 {
			text += ": " + strings.Join(parts, ", ")
		}
		if l.Acknowledged {
			text += " (acknowledged)"
		}
		lines = append(lines, text)
	}
	if target == "" && st.MoreLosses > 0 {
		lines = append(lines, "and "+plural(int(st.MoreLosses), "target")+" more with a loss")
	}
	if len(lines) == 0 {
		return
	}
	s.section(out, "What is lost")
	for _, line := range lines {
		s.text(out, line)
	}
	if unacknowledged(st) != "" {
		s.text(out, "kubectl hlp acknowledge "+f.object.Name+" -n "+f.object.Namespace+" acknowledges all of them.")
	}
}
