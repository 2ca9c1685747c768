package health_test

import (
	"strings"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// A message names what cannot be read, why, and the fix where one is known.
func TestWhatCannotBeReadSaysWhatToDo(t *testing.T) {
	denied := func(path, denies string, owner int64, mode string) *report.BlockedPath {
		return &report.BlockedPath{
			Path: path, Error: "open: permission denied", Errno: "EACCES", Count: 1,
			Denies: denies, Owner: &owner, Bits: mode, RunsAs: new(int64(10000)),
		}
	}
	file := func(errno string) *report.BlockedPath {
		return &report.BlockedPath{Path: "node_fills/hourly/20260430/9", Error: "open: it failed", Errno: errno, Count: 1}
	}
	const path = "node_fills/hourly/20260430/9"
	for name, test := range map[string]struct {
		blocked *report.BlockedPath
		want    string
	}{
		"the data directory is another user's": {
			denied(".", ".", 1000, "0700"),
			"permission denied: the data directory (owner 1000, mode 0700); the parser runs as user 10000: set runAsUser",
		},
		"a directory above it is": {
			denied(".", "/home/hluser", 1000, "0700"),
			"permission denied: /home/hluser (owner 1000, mode 0700); the parser runs as user 10000: set runAsUser",
		},
		"a folder of the stream is": {
			denied(path, "node_fills", 1000, "0700"),
			"permission denied: node_fills (owner 1000, mode 0700); the parser runs as user 10000: set runAsUser",
		},
		"a group may read it": {
			denied(path, path, 1000, "0640"),
			"permission denied: " + path +
				" (owner 1000, mode 0640); the parser runs as user 10000: set runAsUser or supplementalGroups",
		},
		"only root may": {
			denied(path, path, 0, "0600"),
			"permission denied: " + path +
				" (owner 0, mode 0600); the parser runs as user 10000: make it readable for users other than root",
		},
		"everybody may, as far as modes go": {
			denied(path, path, 1000, "0644"),
			"permission denied: " + path +
				" (owner 1000, mode 0644); the parser runs as user 10000: SELinux or similar denies it: set seLinuxOptions",
		},
		"it is the parser's own, and not to be read": {
			denied(path, path, 10000, "0000"),
			"permission denied: " + path +
				" (owner 10000, mode 0000); the parser runs as user 10000: make it readable for its owner",
		},
		"an earlier parser does not say whose it is": {
			file("EACCES"), path + ": EACCES: set runAsUser or supplementalGroups to one that may read it",
		},
		"a mode that is none": {
			denied(path, path, 1000, "rwx"),
			"permission denied: " + path + " (owner 1000, mode rwx); the parser runs as user 10000: " +
				"set runAsUser or supplementalGroups to one that may read it",
		},
		"not permitted": {
			file("EPERM"), path + ": EPERM: set runAsUser or supplementalGroups to one that may read it",
		},
		"the disk fails":       {file("EIO"), path + ": EIO: check the node's disk"},
		"the mount is away":    {file("ENOENT"), path + ": ENOENT: restore the mount or directory"},
		"the mount is stale":   {file("ESTALE"), path + ": ESTALE: remount the node's volume"},
		"the mount is cut off": {file("ENOTCONN"), path + ": ENOTCONN: remount the node's volume"},
		"too many open files":  {file("EMFILE"), path + ": EMFILE: raise the node's open file limit"},
		"a link in a circle":   {file("ELOOP"), path + ": ELOOP: the parser does not follow such a link"},
		"an unknown errno": {
			file("ENOTRECOVERABLE"), path + ": ENOTRECOVERABLE",
		},
		"none": {
			&report.BlockedPath{Path: "x", Error: "a link out of the data directory"}, "x: a link out of the data directory",
		},
		"one of several": {
			&report.BlockedPath{Path: "x", Errno: "EIO", Count: 3}, "x: EIO (and 2 more): check the node's disk",
		},
		"nothing at all": {&report.BlockedPath{}, "the data directory: the parser does not report why"},
		"a long path": {
			&report.BlockedPath{Path: strings.Repeat("a", 200) + "/hourly/20260430/9", Errno: "EIO"},
			"…" + strings.Repeat("a", 42) + "/hourly/20260430/9: EIO: check the node's disk",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := watch()
			got := w.poll(func(r *report.Report) {
				still(r)
				r.Streams[0].State, r.Streams[0].Blocked = report.Blocked, test.blocked
			})
			want := "cannot read the files of OrderStatuses: " + test.want
			if got.Verdict != health.SourceUnreadable || got.Message != want {
				t.Errorf("%s\n got %q\nwant %q", got.Verdict, got.Message, want)
			}
		})
	}
}

// Every state of a stream with every situation of its lines and sink: only a parser that can read, and has something to
// read, is Stuck.
func TestEachStateOfAStreamHasItsVerdict(t *testing.T) {
	type outcome map[string]health.Verdict
	const (
		level  = "level"  // it delivers
		stands = "stands" // lines wait, and nothing moves
		dead   = "dead"   // lines wait, and the sink does not answer
		fresh  = "fresh"  // lines wait, and none was ever acknowledged
		blind  = "blind"  // it is not known what waits
	)
	situations := map[string]func(*report.Stream){
		level:  func(*report.Stream) {},
		stands: func(s *report.Stream) { waits(s, 7_000_000) },
		dead: func(s *report.Stream) {
			waits(s, 7_000_000)
			s.Sink = report.Sink{State: report.SinkRetrying, Since: &start, LastError: "connection refused"}
		},
		fresh: func(s *report.Stream) {
			waits(s, 0)
			s.Sink.OutstandingSeconds = 3 // asked again and again
		},
		blind: func(s *report.Stream) { s.UncommittedBytes, s.LagSeconds = nil, nil },
	}
	for state, want := range map[report.StreamState]outcome{
		report.Running: {
			level: health.Healthy, stands: health.Stuck, dead: health.SinkDown, fresh: health.Unknown, blind: health.Unknown,
		},
		report.WaitingForData: {
			level: health.Healthy, stands: health.Stuck, dead: health.SinkDown, fresh: health.Unknown, blind: health.Unknown,
		},
		report.Blocked: {
			level: health.SourceUnreadable, stands: health.SourceUnreadable, dead: health.SourceUnreadable,
			fresh: health.SourceUnreadable, blind: health.SourceUnreadable,
		},
		report.Draining: {
			level: health.Healthy, stands: health.Healthy, dead: health.SinkDown, fresh: health.Unknown, blind: health.Unknown,
		},
		report.Failed: {
			level: health.NotRunning, stands: health.NotRunning, dead: health.NotRunning, fresh: health.NotRunning,
			blind: health.NotRunning,
		},
		"a state of a later version": {
			level: health.Healthy, stands: health.Stuck, dead: health.SinkDown, fresh: health.Unknown, blind: health.Unknown,
		},
	} {
		for situation, verdict := range want {
			t.Run(string(state)+", "+situation, func(t *testing.T) {
				w := watch()
				for range 8 {
					w.poll(func(r *report.Report) {
						s := &r.Streams[0]
						s.Name, s.State = "Fills", state
						situations[situation](s)
					})
				}
				if got := w.Judgement(); got.Verdict != verdict {
					t.Errorf("%+v, want %s", got, verdict)
				}
			})
		}
	}
}

// waits makes lines wait while every stage stands still.
func waits(s *report.Stream, at int64) {
	s.ReadBytesTotal, s.ParsedBytesTotal, s.AckedBytesTotal = at, at, at
	*s.UncommittedBytes, *s.LagSeconds = 3<<20, 12
}
