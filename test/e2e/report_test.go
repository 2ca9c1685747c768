package e2e_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	. "github.com/onsi/gomega"

	"github.com/hlparser/hyperliquid-parser-operator/hack/demo/compare"
	"github.com/hlparser/hyperliquid-parser-operator/hack/results"
)

// measurement is part of what a spec measures. What it does not measure is nil.
type measurement struct {
	Noticed *time.Duration `json:"noticed,omitempty"` // from the fault to what reports it
	Whole   *time.Duration `json:"whole,omitempty"`   // from the fault, or its end, until all parsers deliver
	Events  *int64         `json:"events,omitempty"`  // written
	Lost    *int64         `json:"lost,omitempty"`
	Twice   *int64         `json:"twice,omitempty"`
}

// measured is the name of report entries that hold a measurement.
const measured = "measurement"

// report prints a line that is read beside the specs' names.
func report(format string, args ...any) {
	GinkgoHelper()
	AddReportEntry(fmt.Sprintf(format, args...))
	GinkgoWriter.Printf(format+"\n", args...)
}

// reportNoticed records how long after the fault it was noticed, and what reports it.
func reportNoticed(fault time.Time, format string, args ...any) {
	GinkgoHelper()
	took := since(fault)
	report("noticed after %s: %s", took, fmt.Sprintf(format, args...))
	AddReportEntry(measured, measurement{Noticed: &took}, ReportEntryVisibilityNever)
}

// reportWhole records how long after begin everything was well again.
func reportWhole(begin time.Time) {
	GinkgoHelper()
	took := since(begin)
	report("whole after %s", took)
	AddReportEntry(measured, measurement{Whole: &took}, ReportEntryVisibilityNever)
}

// reportResult records a comparison.
func reportResult(r *compare.Result) {
	GinkgoHelper()
	AddReportEntry(measured, measurement{Events: &r.Events, Lost: &r.Lost, Twice: &r.Duplicated},
		ReportEntryVisibilityNever)
}

func since(t time.Time) time.Duration { return time.Since(t).Round(100 * time.Millisecond) }

// The table of all specs that ran. The first process makes it of what all have reported.
var _ = ReportAfterSuite("what was measured", func(all Report) {
	text := tableOf(all)
	fmt.Println(text)
	if env.report != "" {
		Expect(os.MkdirAll(filepath.Dir(env.report), 0o755)).To(Succeed())
		Expect(os.WriteFile(env.report, []byte(text), 0o644)).To(Succeed())
	}
	whole := all.SuiteSucceeded && all.SuiteConfig.LabelFilter == "" && len(all.SuiteConfig.FocusStrings) == 0
	if !env.record || !whole {
		return
	}
	updateShown()
	Expect(results.Replace(benchmarksPage, "On a real cluster", machine+introduction+text)).
		To(Succeed())
})

// machine describes where the suite runs, with the load before its start.
var machine = results.Machine()

// introduction of the table in docs/benchmarks.md.
const introduction = `
Written by ` + "`E2E_RECORD=1 make e2e`" + `: Kubernetes out of processes, containerd, two nodes, two managers, the
file sink unless the case names another, ` + "`pollInterval: 1s` and `stuckAfter: 6s`" + `. Specs run in parallel on
this machine, which also runs the control plane, the nodes, and what writes their data. Every spec compares every event
that was written with every record that was delivered, and their order. Standard output delivers at least once; all else
is exact.

A sink is due to be reported 30 s after its last acknowledgement, and a pod that does not start 30 s after its creation.
The kubelet's node is lost 40 s after its last report, which is Kubernetes' default. Whole is measured from the end of
the fault where the fault ends by itself or by a person, and from its start otherwise; it includes the time until the
operator has seen enough reports to call a parser healthy.

`

// tableOf returns a Markdown table with a row for each spec that ran.
func tableOf(all Report) string {
	specs := slices.Clone(all.SpecReports)
	specs = slices.DeleteFunc(specs, func(s SpecReport) bool {
		return s.LeafNodeType != types.NodeTypeIt || s.State.Is(types.SpecStateSkipped|types.SpecStatePending)
	})
	slices.SortStableFunc(specs, func(a, b SpecReport) int {
		return cmp.Or(cmp.Compare(a.LeafNodeLocation.FileName, b.LeafNodeLocation.FileName),
			cmp.Compare(a.LeafNodeLocation.LineNumber, b.LeafNodeLocation.LineNumber))
	})
	var table results.Table
	table.Row("case", "noticed, s", "whole, s", "events", "lost", "twice", "took, s")
	for i := range specs {
		spec := &specs[i]
		name := strings.Join(append(slices.Clone(spec.ContainerHierarchyTexts), spec.LeafNodeText), " ")
		if !spec.State.Is(types.SpecStatePassed) {
			name += " (" + spec.State.String() + ")"
		}
		m := measurementOf(spec)
		table.Row(name, seconds(m.Noticed), seconds(m.Whole), figure(m.Events), figure(m.Lost), figure(m.Twice),
			fmt.Sprintf("%.0f", spec.RunTime.Seconds()))
	}
	return fmt.Sprintf("%s\n%d specs in %s, in %d processes.\n",
		table.String(), len(specs), all.RunTime.Round(time.Second), all.SuiteConfig.ParallelTotal)
}

// measurementOf merges what a spec has measured. The first time of each kind counts, and the last comparison.
func measurementOf(spec *SpecReport) measurement {
	var sum measurement
	for i := range spec.ReportEntries {
		entry := &spec.ReportEntries[i]
		if entry.Name != measured {
			continue
		}
		// From another process the value arrives as what its JSON decodes to.
		var m measurement
		data, err := json.Marshal(entry.GetRawValue())
		Expect(err).NotTo(HaveOccurred())
		Expect(json.Unmarshal(data, &m)).To(Succeed())
		sum.Noticed, sum.Whole = cmp.Or(sum.Noticed, m.Noticed), cmp.Or(sum.Whole, m.Whole)
		sum.Events, sum.Lost, sum.Twice = cmp.Or(m.Events, sum.Events), cmp.Or(m.Lost, sum.Lost), cmp.Or(m.Twice, sum.Twice)
	}
	return sum
}

func seconds(d *time.Duration) string {
	if d == nil {
		return ""
	}
	return fmt.Sprintf("%.1f", d.Seconds())
}

func figure(n *int64) string {
	if n == nil {
		return ""
	}
	return fmt.Sprint(*n)
}
