/*
Copyright The Hyperliquid Parser Operator Authors.

Licensed under the Apache License, Version 2.0 (the "License");
you may not use this file except in compliance with the License.
You may obtain a copy of the License at

    http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software
distributed under the License is distributed on an "AS IS" BASIS,
WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
See the License for the specific language governing permissions and
limitations under the License.
*/

// Command controlplane provides etcd, kube-apiserver and, with --with, further Kubernetes programs for tests and the
// demo. It prints only the directory of the programs on standard output:
//
//	KUBEBUILDER_ASSETS=$(go -C hack/controlplane run . --with kube-controller-manager)
//
// It uses the first of these that has every requested program:
// 1. $KUBEBUILDER_ASSETS;
// 2. an earlier build, in $CONTROLPLANE_CACHE or the user's cache directory;
// 3. setup-envtest's archive, which has only etcd, kube-apiserver and kubectl;
// 4. a build from Go modules, at the versions in this folder's go.mod.
//
// It must run in its own folder (go -C changes to it). It needs no privileges.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// downloadLimit bounds setup-envtest: where a network drops packets silently, a build is faster than a long wait.
const downloadLimit = time.Minute

const (
	etcd      = "etcd"
	apiserver = "kube-apiserver"
)

// inArchive lists the programs in setup-envtest's archive.
var inArchive = []string{etcd, apiserver, "kubectl"}

func main() {
	with := flag.String("with", "", "comma-separated list of further programs, such as "+
		"kube-controller-manager,kube-scheduler")
	flag.Parse()
	wanted := []string{etcd, apiserver}
	for name := range strings.FieldsFuncSeq(*with, func(r rune) bool { return r == ',' }) {
		if !slices.Contains(wanted, name) {
			wanted = append(wanted, name)
		}
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := assets(ctx, wanted)
	if err != nil {
		say("%v", err)
		os.Exit(1)
	}
	fmt.Println(dir)
}

// assets returns a directory that holds every wanted program.
func assets(ctx context.Context, wanted []string) (string, error) {
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" {
		lacks := missing(dir, wanted)
		if len(lacks) == 0 {
			say("using KUBEBUILDER_ASSETS")
			return dir, nil
		}
		say("KUBEBUILDER_ASSETS lacks %s: trying other sources", strings.Join(lacks, ", "))
	}

	version, err := kubernetesVersion()
	if err != nil {
		return "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, fmt.Sprintf("%s-%s-%s", version, runtime.GOOS, runtime.GOARCH))
	if len(missing(dir, wanted)) == 0 {
		say("using the earlier build of Kubernetes %s", version)
		return dir, nil
	}

	unlock, err := lock(ctx, cache)
	if err != nil {
		return "", err
	}
	defer unlock()
	lacks := missing(dir, wanted) // another process may have built them meanwhile
	if len(lacks) == 0 {
		say("using Kubernetes %s, just built by another process", version)
		return dir, nil
	}

	if !slices.ContainsFunc(wanted, func(name string) bool { return !slices.Contains(inArchive, name) }) {
		archive, err := setupEnvtest(ctx, version)
		if err == nil && len(missing(archive, wanted)) == 0 {
			say("using setup-envtest's archive")
			return archive, nil
		}
		say("setup-envtest provides no archive: %v", err)
	}

	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("creating the cache: %w", err)
	}
	say("building %s %s from Go modules, once: about %d min on two cores",
		strings.Join(lacks, ", "), version, estimate(lacks))
	for _, name := range lacks {
		if err := build(ctx, dir, name, version); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// missing returns the wanted programs that are not in dir.
func missing(dir string, wanted []string) []string {
	return slices.DeleteFunc(slices.Clone(wanted), func(name string) bool {
		info, err := os.Stat(filepath.Join(dir, name))
		return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
	})
}

// kubernetesVersion reads the version that go.mod requires. It does not run the go command, which would need the whole
// module graph.
func kubernetesVersion() (string, error) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		return "", fmt.Errorf("run as `go -C hack/controlplane run .`: %w", err)
	}
	m := regexp.MustCompile(`(?m)^\s*(?:require )?k8s\.io/kubernetes (v\S+)`).FindSubmatch(mod)
	if m == nil {
		return "", errors.New("go.mod requires no k8s.io/kubernetes")
	}
	return string(m[1]), nil
}

func cacheDir() (string, error) {
	if dir := os.Getenv("CONTROLPLANE_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache directory (CONTROLPLANE_CACHE names another): %w", err)
	}
	return filepath.Join(dir, "hyperliquid-parser-operator", "controlplane"), nil
}

// lock lets one process at a time download or build. The kernel releases the lock when the process ends.
func lock(ctx context.Context, cache string) (unlock func(), err error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("creating the cache: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(cache, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking the cache: %w", err)
	}
	for announced := false; ; announced = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("locking the cache: %w", err), f.Close())
		}
		if !announced {
			say("waiting for another process that downloads or builds")
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// setupEnvtest returns the directory of the archive of version's minor release. It downloads the archive into
// setup-envtest's own store unless it is there.
func setupEnvtest(ctx context.Context, version string) (string, error) {
	say("running setup-envtest (at most %s)", downloadLimit)
	ctx, cancel := context.WithTimeout(ctx, downloadLimit)
	defer cancel()
	minor := version[1:strings.LastIndex(version, ".")]
	cmd := exec.CommandContext(ctx, "go", "tool", "-modfile=../tools/go.mod",
		"setup-envtest", "use", minor+".x", "-p", "path")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // the go command passes the signal on
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return strings.TrimSpace(string(out)), err
}

// build compiles a program and moves it into dir once it is complete.
func build(ctx context.Context, dir, name, version string) error {
	pkg := "k8s.io/kubernetes/cmd/" + name
	if name == etcd {
		pkg = "go.etcd.io/etcd/server/v3"
	}
	const v = "-X k8s.io/component-base/version."
	number := strings.Split(strings.TrimPrefix(version, "v"), ".")
	ldflags := fmt.Sprintf("-s -w %sgitVersion=%s %sgitMajor=%s %sgitMinor=%s", v, version, v, number[0], v, number[1])

	start := time.Now()
	part := filepath.Join(dir, name+".part")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", ldflags, "-o", part, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building %s: %w", name, err)
	}
	if err := os.Rename(part, filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("storing %s: %w", name, err)
	}
	say("built %s in %s", name, time.Since(start).Round(time.Second))
	return nil
}

// estimate returns how many minutes a first build takes on two cores. kube-apiserver includes most of what the others
// need.
func estimate(programs []string) int {
	minutes := len(programs)
	if slices.Contains(programs, apiserver) {
		minutes += 4
	}
	return minutes
}

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "control plane: "+format+"\n", args...)
}
