// Command build provides Argo CD for the tests in hack/argocd/real: its one program, which is every component, the
// CRDs and the ConfigMap that it is installed with, and kustomize. It prints only their directory on standard output:
//
//	ARGOCD_ASSETS=$(go run ./hack/argocd/build)
//
// It builds them from Go modules, at the versions that hack/argocd/module and hack/tools pin, and keeps them in the
// user's cache directory. Argo CD needs a newer Go than this repository; the go command gets the toolchain that
// hack/argocd/module/go.mod names from the module proxy, for that build alone.
//
// It runs in the project's root. It needs no privileges, no Docker and no node.js: Argo CD's web pages are left out.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	module    = "hack/argocd/module"
	argocd    = "github.com/argoproj/argo-cd/v3"
	kustomize = "sigs.k8s.io/kustomize/kustomize/v5"
)

// files are what is taken from Argo CD's module besides the program: where it is there, and whether it is a program.
// The repo-server runs git-verify-wrapper.sh on every commit, signed or not.
var files = []struct {
	path string
	mode os.FileMode
}{
	{"manifests/crds/application-crd.yaml", 0o644},
	{"manifests/crds/applicationset-crd.yaml", 0o644},
	{"manifests/crds/appproject-crd.yaml", 0o644},
	{"manifests/base/config/argocd-cm.yaml", 0o644},
	{"hack/git-verify-wrapper.sh", 0o755},
	{"hack/gpg-wrapper.sh", 0o755},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	dir, err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "argocd:", err)
		os.Exit(1)
	}
	fmt.Println(dir)
}

func run(ctx context.Context) (string, error) {
	pins, err := readPins(module)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache directory: %w", err)
	}
	dir := filepath.Join(cache, "hyperliquid-parser-operator", "argocd", pins.version+"-"+pins.digest)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("finding an earlier build: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", fmt.Errorf("creating the cache: %w", err)
	}
	// Complete or not there: another process may build the same.
	part, err := os.MkdirTemp(filepath.Dir(dir), ".part-")
	if err != nil {
		return "", fmt.Errorf("creating the cache: %w", err)
	}
	defer func() { _ = os.RemoveAll(part) }()
	if err := pins.build(ctx, part); err != nil {
		return "", err
	}
	if err := os.Rename(part, dir); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("storing the build: %w", err)
	}
	return dir, nil
}

// pins are the versions of a build.
type pins struct {
	dir       string // of go.mod
	version   string // of Argo CD, such as v3.6.1
	toolchain string // such as go1.27.3
	digest    string // of all that decides what is built
}

var (
	toolchainLine = regexp.MustCompile(`(?m)^toolchain (\S+)$`)
	versionLine   = regexp.MustCompile(`(?m)^\s*(?:require )?` + regexp.QuoteMeta(argocd) + ` (v\S+)`)
)

func readPins(dir string) (*pins, error) {
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return nil, fmt.Errorf("reading the versions (run in the project's root): %w", err)
	}
	tools, err := os.ReadFile("hack/tools/go.mod")
	if err != nil {
		return nil, fmt.Errorf("reading the version of kustomize: %w", err)
	}
	p := &pins{dir: dir, digest: fmt.Sprintf("%x", sha256.Sum256(slices.Concat(mod, tools)))[:12]}
	if m := toolchainLine.FindSubmatch(mod); m != nil {
		p.toolchain = string(m[1])
	}
	if m := versionLine.FindSubmatch(mod); m != nil {
		p.version = string(m[1])
	}
	if p.toolchain == "" || p.version == "" {
		return nil, fmt.Errorf("reading the versions: %s/go.mod names no toolchain or no %s", dir, argocd)
	}
	return p, nil
}

func (p *pins) build(ctx context.Context, dir string) error {
	begin := time.Now()
	fmt.Fprintf(os.Stderr, "argocd: building Argo CD %s with %s from Go modules, once: some minutes, 8 minutes of CPU\n",
		p.version, p.toolchain)
	ldflags := "-s -w -X " + argocd + "/common.version=" + strings.TrimPrefix(p.version, "v")
	_, err := p.command(ctx, "go", "build", "-trimpath", "-ldflags", ldflags,
		"-o", filepath.Join(dir, "argocd"), argocd+"/cmd")
	if err != nil {
		return err
	}
	source, err := p.command(ctx, "go", "list", "-m", "-f", "{{.Dir}}", argocd)
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(source, filepath.FromSlash(f.path)))
		if err != nil {
			return fmt.Errorf("reading a file of Argo CD: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f.path)), text, f.mode); err != nil {
			return fmt.Errorf("storing a file of Argo CD: %w", err)
		}
	}
	_, err = output(exec.CommandContext(ctx, "go", "build", "-modfile=hack/tools/go.mod", "-trimpath",
		"-o", filepath.Join(dir, "kustomize"), kustomize))
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "argocd: built in %s\n", time.Since(begin).Round(time.Second))
	return nil
}

// command runs a program in the module's directory, with the module's Go. It returns what the program prints.
func (p *pins) command(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN="+p.toolchain, "CGO_ENABLED=0", "GOWORK=off")
	return output(cmd)
}

func output(cmd *exec.Cmd) (string, error) {
	// The go command passes the signal on.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("running %s: %w: %s", strings.Join(cmd.Args[:2], " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSpace(string(out)), nil
}
