// Package version holds the version of the build, which both programs print, log and export as a metric.
package version

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
)

// The linker sets these; see GO_BUILD in the Makefile.
var version, commit string

// Info identifies a build.
type Info struct {
	Version string // such as v1.2.3; "(devel)" if unknown
	Commit  string // hash of the commit; "unknown" if unknown
	Go      string // version of Go, such as go1.26.0
}

// Get returns the values that the linker set, or else those that the go command recorded.
func Get() Info {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		build = &debug.BuildInfo{}
	}
	return from(version, commit, build)
}

func from(version, commit string, build *debug.BuildInfo) Info {
	recorded := ""
	for _, s := range build.Settings {
		if s.Key == "vcs.revision" {
			recorded = s.Value
		}
	}
	return Info{
		Version: cmp.Or(version, build.Main.Version, "(devel)"),
		Commit:  cmp.Or(commit, recorded, "unknown"),
		Go:      runtime.Version(),
	}
}

// String returns a build as --version prints it: v1.2.3 (commit 0123abcd, go1.26.0).
func (i Info) String() string { return fmt.Sprintf("%s (commit %s, %s)", i.Version, i.Commit, i.Go) }

// LogValues returns the build as pairs of keys and values for a logger.
func (i Info) LogValues() []any { return []any{"version", i.Version, "commit", i.Commit, "go", i.Go} }

// NewCollector returns the metric of the given name that has the build as labels.
func (i Info) NewCollector(name, program string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        name,
		Help:        "Version, revision and Go version of " + program + ". Always 1.",
		ConstLabels: prometheus.Labels{"version": i.Version, "revision": i.Commit, "goversion": i.Go},
	}, func() float64 { return 1 })
}
