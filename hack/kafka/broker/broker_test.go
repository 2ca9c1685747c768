package broker

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hlparser/hyperliquid-parser-operator/hack/child"
)

func TestTheVersionOfJavaIsRead(t *testing.T) {
	for text, want := range map[string]int{
		"openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime Environment": 17,
		"openjdk version \"25\" 2025-09-16":                                   25,
		"java version \"1.8.0_392\"":                                          8,
		"openjdk version \"21-ea\" 2023-09-19":                                21,
	} {
		if got, err := javaVersion(text); got != want || err != nil {
			t.Errorf("javaVersion(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	if got, err := javaVersion("command not found"); err == nil {
		t.Errorf("a text without a version is version %d", got)
	}
}

func TestAMissingOrOldJavaIsReportedWithWhatToInstall(t *testing.T) {
	t.Setenv("KAFKA_CACHE", t.TempDir())
	old := t.TempDir()
	if err := os.Mkdir(filepath.Join(old, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n"
	if err := os.WriteFile(filepath.Join(old, "bin", "java"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, home := range map[string]string{"missing": t.TempDir(), "Java 11": old} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("JAVA_HOME", home)
			err := Prepare(t.Context(), t.Logf)
			if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "apt-get install") {
				t.Errorf("got %v, want ErrMissing with instructions", err)
			}
		})
	}
}

func TestAMissingMavenIsReportedWithWhatToInstall(t *testing.T) {
	t.Setenv("KAFKA_CACHE", t.TempDir())
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\necho 'openjdk version \"17.0.15\" 2025-04-15' >&2\n"
	if err := os.WriteFile(filepath.Join(home, "bin", "java"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("JAVA_HOME", home)
	t.Setenv("PATH", "/bin/does/not/exist:"+t.TempDir())
	err := download(t.Context(), t.TempDir(), filepath.Join(t.TempDir(), "jars"))
	if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "Maven") {
		t.Errorf("got %v, want ErrMissing with instructions", err)
	}
}

func TestOnlyTheJarsOfTheListAreAccepted(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("a.jar", "a")
	put("b.jar", "b")
	line := func(name, text string) string { return fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(text)), name) }
	for name, tc := range map[string]struct{ sums, want string }{
		"as listed":  {line("a.jar", "a") + line("b.jar", "b"), ""},
		"changed":    {line("a.jar", "a") + line("b.jar", "c"), "b.jar has the sum"},
		"missing":    {line("a.jar", "a") + line("b.jar", "b") + line("c.jar", "c"), "c.jar is missing"},
		"additional": {line("a.jar", "a"), "b.jar is not in the list"},
	} {
		err := verify(dir, []byte(tc.sums))
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}

func TestAKilledBrokerComesBackWithItsRecordsAndCloseLeavesNothing(t *testing.T) {
	if os.Getenv("HLPARSER_BROKERS") == "" {
		t.Skip("needs Java and Maven: set HLPARSER_BROKERS=1, or run make brokers")
	}
	dir := t.TempDir()
	c, err := Start(t.Context(), Options{Dir: dir, JVM: []string{"-XX:TieredStopAtLevel=1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Addresses()...), kgo.DefaultProduceTopic("t"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if _, err := kadm.NewClient(client).CreateTopic(ctx, 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(ctx, kgo.StringRecord("before")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	was := c.brokers[0].child
	c.Kill(0)
	if code, _ := was.Exit(); code != 137 {
		t.Errorf("the killed broker has the exit code %d, want 137", code)
	}
	if err := c.Start(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(ctx, kgo.StringRecord("after")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, "t")
	if err != nil {
		t.Fatal(err)
	}
	if o, _ := ends.Lookup("t", 0); o.Offset != 2 {
		t.Errorf("the topic ends at %d, want 2", o.Offset)
	}
	last := c.brokers[0].child
	c.Close()
	for _, ended := range []*child.Child{was, last} {
		if err := processExists(ended.PID()); err == nil {
			t.Errorf("process %d is still there", ended.PID())
		}
	}
}

// processExists returns an error if there is no process of an id.
func processExists(pid int) error {
	_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	return err
}
