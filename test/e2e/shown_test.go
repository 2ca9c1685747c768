package e2e_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// keep stores what kubectl shows of an object, for people to read: all of it in NAME.txt, and what matters of it, as
// docs/faults-shown.md has it, in NAME.md.
func keep(ctx context.Context, f *fleet, name string) {
	GinkgoHelper()
	if env.artifacts == "" {
		return
	}
	table := kubectl(ctx, "get", "hlp", f.name, "-n", f.namespace, "-o", "wide")
	described := kubectl(ctx, "describe", "hlp", f.name, "-n", f.namespace)
	conditions := f.get(ctx).Status.Conditions
	pods := kubectl(ctx, "get", "pods", "-n", f.namespace, "-o", "wide")
	write := func(file, text string) {
		Expect(os.MkdirAll(env.artifacts, 0o755)).To(Succeed())
		Expect(os.WriteFile(filepath.Join(env.artifacts, file), []byte(text), 0o644)).To(Succeed())
	}
	write(name+".txt", fmt.Sprintf(
		"$ kubectl get hlp %s -o wide\n%s\n$ kubectl describe hlp %s\n%s\n$ kubectl get pods\n%s",
		f.name, table, f.name, described, pods,
	))
	write(name+".md", "```\n$ kubectl get hlp "+f.name+" -o wide\n"+withoutColumn(table, "REVISION")+"\n"+
		shownConditions(conditions)+"\n"+shownEvents(described)+"```\n")
}

// width is how long lines of documentation may be.
const width = 120

// fold breaks a line at blanks where it is longer than width. What follows is indented.
func fold(line, indent string) string {
	var out strings.Builder
	for len(line) > width {
		at := strings.LastIndexByte(line[:width+1], ' ')
		if at <= len(indent) {
			break
		}
		out.WriteString(strings.TrimRight(line[:at], " ") + "\n")
		line = indent + strings.TrimLeft(line[at:], " ")
	}
	out.WriteString(line + "\n")
	return out.String()
}

// withoutColumn removes a column of a table that kubectl prints.
func withoutColumn(table, column string) string {
	var out strings.Builder
	from, to := -1, -1
	for line := range strings.Lines(table) {
		line = strings.TrimRight(line, "\n")
		if from < 0 {
			from = strings.Index(line, column)
			rest := line[from+len(column):]
			to = from + len(column) + len(rest) - len(strings.TrimLeft(rest, " "))
		}
		if len(line) > to {
			line = line[:from] + line[to:]
		}
		out.WriteString(fold(line, "    "))
	}
	return out.String()
}

// shownConditions returns the conditions that are not as they should be, or all if they are.
func shownConditions(conditions []metav1.Condition) string {
	var bad, all strings.Builder
	for i := range conditions {
		c := &conditions[i]
		good := metav1.ConditionTrue
		if c.Type == v1alpha1.ConditionReconciling || c.Type == v1alpha1.ConditionStalled {
			good = metav1.ConditionFalse
		}
		line := fold(fmt.Sprintf("%-20s %s: %s", c.Type+" "+string(c.Status), c.Reason, c.Message), "    ")
		all.WriteString(line)
		if c.Status != good {
			bad.WriteString(line)
		}
	}
	if bad.Len() > 0 {
		return bad.String()
	}
	return all.String()
}

// columns are separated by at least two blanks.
var columns = regexp.MustCompile(` {2,}`)

// shownEvents returns the events at the end of what kubectl describe prints.
func shownEvents(described string) string {
	_, events, _ := strings.Cut(described, "\nEvents:")
	if strings.TrimSpace(events) == "<none>" {
		return "Events: <none>\n"
	}
	out := "Events:\n"
	lines := strings.Split(strings.Trim(events, "\n"), "\n")
	for _, line := range lines[min(2, len(lines)):] { // after the header
		out += fold("  "+columns.ReplaceAllString(strings.TrimSpace(line), "  "), "      ")
	}
	return out
}

// Documentation that a whole run writes if E2E_RECORD is set.
const (
	shownPage      = "../../docs/faults-shown.md"
	benchmarksPage = "../../docs/benchmarks.md"
)

// block matches a named block of docs/faults-shown.md.
var block = regexp.MustCompile("(?s)(<!-- shown: ([a-z-]+) -->\n)```\n.*?\n```\n")

// updateShown replaces the blocks of docs/faults-shown.md by what was kept.
func updateShown() {
	GinkgoHelper()
	page, err := os.ReadFile(shownPage)
	Expect(err).NotTo(HaveOccurred())
	page = block.ReplaceAllFunc(page, func(old []byte) []byte {
		parts := block.FindSubmatch(old)
		text, err := os.ReadFile(filepath.Join(env.artifacts, string(parts[2])+".md"))
		Expect(err).NotTo(HaveOccurred())
		return slices.Concat(parts[1], text)
	})
	Expect(os.WriteFile(shownPage, page, 0o644)).To(Succeed())
}
