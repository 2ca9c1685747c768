package main

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
)

// fleetTable formats one snapshot of the fleet.
func (s *screen) fleetTable(l *snapshot, phase string, linesPerSecond float64) []string {
	status := &l.object.Status
	head := fmt.Sprintf("%s/%s  %s  %s lines/s  ready %d/%d  bad %d  restarts %d",
		fleetNamespace, fleetName, phase, humanize.Comma(int64(linesPerSecond)),
		status.Ready, status.Desired, status.Bad, status.Restarts)
	rows := []string{}
	if s.width > 0 {
		rows = append(rows, "", s.paint(bold, head), "")
	} else {
		rows = append(rows, head)
	}
	rows = append(rows, s.paint(dim, fmt.Sprintf("  "+row,
		"NODE", "VERDICT    ", "HOUR", "RECORDS/S", "BUFFER", "BATCHES", "BATCH", "RSS", "REPLACED", "BACKLOG", "")))
	for _, n := range l.nodes {
		rows = append(rows, "  "+s.nodeRow(&n))
	}
	return rows
}

// row is the table's layout. Verdicts are padded separately, because their colours have no visible width. The backlog's
// curve is last, where a narrow terminal may cut it.
const row = "%-7s %s %4s %9s %7s %7s %6s %7s %8s %8s  %s"

func (s *screen) nodeRow(n *nodeSnapshot) string {
	verdict := s.paint(verdictColor(n.verdict), fmt.Sprintf("%-11s", n.verdict))
	if n.report == nil {
		return fmt.Sprintf("%-7s %s %s", n.name, verdict, s.paint(yellow, podState(n.pod)))
	}
	sum := total(n.report)
	return fmt.Sprintf(row,
		n.name, verdict, hour(sum.File), humanize.Comma(n.delivered),
		humanize.Comma(sum.BufferLines), humanize.Comma(sum.BatchesTotal), humanize.Comma(sum.LastBatchLines),
		size(n.report.Process.RSSBytes), strconv.Itoa(n.replaced),
		size(sum.UncommittedBytes), s.paint(cyan, curve(n.backlogs)))
}

// size formats a number of bytes.
func size(n *int64) string {
	if n == nil {
		return "-"
	}
	return humanize.IBytes(uint64(max(*n, 0)))
}

// hour returns the name of the file that is being read.
func hour(file string) string {
	if file == "" {
		return "-"
	}
	return path.Base(file)
}

func podState(pod *corev1.Pod) string {
	switch {
	case pod == nil:
		return "no pod"
	case pod.DeletionTimestamp != nil:
		return pod.Name + " is ending"
	case len(pod.Status.ContainerStatuses) > 0 && pod.Status.ContainerStatuses[0].State.Waiting != nil:
		waiting := pod.Status.ContainerStatuses[0].State.Waiting
		return strings.TrimSpace(pod.Name + " " + waiting.Reason + " " + waiting.Message)
	default:
		return pod.Name + " is starting"
	}
}

func verdictColor(verdict string) string {
	switch verdict {
	case healthy:
		return green
	case unknown:
		return dim
	default:
		return red
	}
}

// curve draws values as bars. Its scale has a minimum, so that normal latency, a second's lines until the next commit,
// looks flat.
func curve(values []int64) string {
	const floor = 4 << 20
	bars := []rune("▁▂▃▄▅▆▇█")
	top := int64(floor)
	for _, v := range values {
		top = max(top, v)
	}
	var out strings.Builder
	for _, v := range values {
		out.WriteRune(bars[min(int(max(v, 0)*int64(len(bars))/top), len(bars)-1)])
	}
	return out.String()
}

// eventLine formats an event.
func (s *screen) eventLine(e *eventsv1.Event) string {
	color := dim
	if e.Type == corev1.EventTypeWarning {
		color = yellow
	}
	return s.paint(color, fmt.Sprintf("event %s %s: %s", e.Reason, subject(e), e.Note))
}

// describe formats the table of kubectl get, then conditions and events as kubectl would.
func describe(l *snapshot, table string, events []eventsv1.Event) string {
	status := &l.object.Status
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("")
	p("$ %s\n%s", getCommand, strings.TrimRight(table, "\n"))
	p("")
	p("Conditions:")
	p("  %-15s %-7s %-16s %s", "Type", "Status", "Reason", "Message")
	for _, c := range status.Conditions {
		p("  %-15s %-7s %-16s %s", c.Type, c.Status, c.Reason, c.Message)
	}
	p("")
	if len(events) == 0 {
		p("Events: <none>")
		return b.String()
	}
	p("Events:")
	p("  %-8s %-18s %-6s %-30s %s", "Type", "Reason", "Age", "Object", "Message")
	for _, e := range events {
		p("  %-8s %-18s %-6s %-30s %s", e.Type, e.Reason, age(eventTime(&e)), subject(&e), e.Note)
	}
	return b.String()
}

func subject(e *eventsv1.Event) string {
	return strings.ToLower(e.Regarding.Kind) + "/" + e.Regarding.Name
}

func eventTime(e *eventsv1.Event) time.Time {
	if !e.EventTime.IsZero() {
		return e.EventTime.Time
	}
	return e.CreationTimestamp.Time
}

func age(t time.Time) string { return time.Since(t).Truncate(time.Second).String() }
