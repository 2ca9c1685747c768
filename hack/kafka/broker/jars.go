package broker

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed" // the build's files
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// oldestJava is what brokers since Kafka 4.0 need.
	oldestJava = 17
	// copyGoal names the plugin with its version, so that the result does not depend on Maven's own default.
	copyGoal = "org.apache.maven.plugins:maven-dependency-plugin:3.11.0:copy-dependencies"
	// install names the packages to install.
	install = "install Java 17 or later and Maven; on Debian: apt-get install openjdk-17-jre-headless maven"
)

// ErrMissing reports that Java or Maven is missing or too old.
var ErrMissing = errors.New("a program that runs Kafka is missing")

//go:embed pom.xml
var pom []byte

// jarSums has a line for each jar that the pom resolves to, as sha256sum writes it. After a change of the pom,
// write it again: (cd DIRECTORY && sha256sum *.jar) > jars.sha256, with the directory that the error names.
//
//go:embed jars.sha256
var jarSums []byte

// Version returns the version of Kafka.
func Version() string {
	m := regexp.MustCompile(`<artifactId>kafka_[\d.]+</artifactId>\s*<version>([^<]+)<`).FindSubmatch(pom)
	return string(m[1])
}

// runtime is what runs a broker.
type runtime struct {
	java string // the program
	jars string // the directory of Kafka's jars
}

// Prepare finds Java, and downloads Kafka with Maven unless an earlier call has done so. The jars are kept in the
// user's cache directory, or in $KAFKA_CACHE. say receives what takes long. The error is ErrMissing if Java or Maven
// is missing.
func Prepare(ctx context.Context, say func(format string, args ...any)) error {
	_, err := prepare(ctx, say)
	return err
}

func prepare(ctx context.Context, say func(format string, args ...any)) (runtime, error) {
	java, err := findJava(ctx)
	if err != nil {
		return runtime{}, err
	}
	cache, err := cacheDir()
	if err != nil {
		return runtime{}, err
	}
	// The name depends on all that decides which jars there are.
	sum := sha256.Sum256(append(bytes.Clone(pom), jarSums...))
	dir := filepath.Join(cache, Version()+"-"+hex.EncodeToString(sum[:6]))
	if _, err := os.Stat(dir); err == nil {
		return runtime{java, dir}, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return runtime{}, fmt.Errorf("creating the cache: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(cache, ".lock"))
	if err != nil {
		return runtime{}, err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil { // another process has downloaded it meanwhile
		return runtime{java, dir}, nil
	}
	say("downloading Kafka %s with Maven, once", Version())
	return runtime{java, dir}, download(ctx, cache, dir)
}

func cacheDir() (string, error) {
	if dir := os.Getenv("KAFKA_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache directory (KAFKA_CACHE names another): %w", err)
	}
	return filepath.Join(dir, "hyperliquid-parser-operator", "kafka"), nil
}

// lock lets one process at a time download. The kernel releases the lock when the process ends.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking the cache: %w", err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("locking the cache: %w", err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// findJava returns the program java of $JAVA_HOME or $PATH if it is new enough.
func findJava(ctx context.Context) (string, error) {
	java := "java"
	if home := os.Getenv("JAVA_HOME"); home != "" {
		java = filepath.Join(home, "bin", java)
	}
	java, err := exec.LookPath(java)
	if err != nil {
		return "", fmt.Errorf("%w: %w: %s", ErrMissing, err, install)
	}
	//nolint:gosec // JAVA_HOME is a setting of the user with whose rights this runs.
	out, err := exec.CommandContext(ctx, java, "-version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("reading the version of %s: %w: %s", java, err, out)
	}
	version, err := javaVersion(string(out))
	switch {
	case err != nil:
		return "", fmt.Errorf("reading the version of %s: %w", java, err)
	case version < oldestJava:
		return "", fmt.Errorf("%w: %s is Java %d: %s", ErrMissing, java, version, install)
	}
	return java, nil
}

// javaVersion returns the major version in what java -version prints.
func javaVersion(text string) (int, error) {
	m := regexp.MustCompile(`version "(?:1\.)?(\d+)`).FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("%q has no version", text)
	}
	return strconv.Atoi(m[1])
}

// download copies the jars into dir, which appears once it is complete.
func download(ctx context.Context, cache, dir string) error {
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return fmt.Errorf("%w: %w: %s", ErrMissing, err, install)
	}
	work, err := os.MkdirTemp(cache, "part-")
	if err != nil {
		return fmt.Errorf("creating the cache: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := os.WriteFile(filepath.Join(work, "pom.xml"), pom, 0o644); err != nil {
		return fmt.Errorf("writing the pom: %w", err)
	}
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil {
		return fmt.Errorf("removing an incomplete download: %w", err)
	}
	cmd := exec.CommandContext(ctx, mvn, "--batch-mode", "--quiet", copyGoal,
		"-DoutputDirectory="+part, "-DincludeScope=runtime")
	cmd.Dir = work
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("downloading Kafka with Maven: %w: %s", err, out)
	}
	if err := verify(part, jarSums); err != nil {
		return fmt.Errorf("verifying the jars in %s: %w", part, err)
	}
	if err := os.Rename(part, dir); err != nil {
		return fmt.Errorf("storing Kafka: %w", err)
	}
	return nil
}

// verify checks that a directory holds the files of sums, and nothing else.
func verify(dir string, sums []byte) error {
	wanted := map[string]string{}
	for lines := bufio.NewScanner(bytes.NewReader(sums)); lines.Scan(); {
		sum, name, ok := strings.Cut(lines.Text(), "  ")
		if !ok {
			return fmt.Errorf("the list of sums has the line %q", lines.Text())
		}
		wanted[name] = sum
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		sum, ok := wanted[e.Name()]
		if !ok {
			return fmt.Errorf("%s is not in the list of sums", e.Name())
		}
		delete(wanted, e.Name())
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		if got := sha256.Sum256(data); hex.EncodeToString(got[:]) != sum {
			return fmt.Errorf("%s has the sum %x, want %s", e.Name(), got, sum)
		}
	}
	for name := range wanted {
		return fmt.Errorf("%s is missing", name)
	}
	return nil
}
