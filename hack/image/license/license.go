// Package license finds the licences of all that is linked into programs of the repository.
package license

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// Std is the path of the Go standard library, which the go command lists as no module.
const Std = "std"

// Module is a module that is linked in.
type Module struct {
	Path    string
	Version string
	// Licenses are the SPDX identifiers of all licences in Texts, sorted.
	Licenses []string
	// Texts are the files with licences and notices that lie beside linked packages or above them, by their path in the
	// module.
	Texts map[string]string
}

// allowed are the licences that may be linked into programs under Apache 2.0, and that this package knows how to
// comply with: their texts are part of the image.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"}

// Names of files.
var (
	// files hold licences and notices.
	files = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([-_.].*)?$`)
	// foreign are licences of what is not linked: documentation.
	foreign = regexp.MustCompile(`(?i)([.]docs|[.]go)$`)
	// notices hold no licence of the code: thanks, and Google's grant of patents, which only adds rights.
	notices = regexp.MustCompile(`(?i)^(notice|patents)`)
)

// listed is what `go list` prints of a package.
type listed struct {
	Dir      string
	Standard bool
	Module   *struct {
		Path, Version, Dir string
		Main               bool
		Replace            *struct{ Path, Version, Dir string }
	}
}

// Collect returns the modules that are linked into programs, sorted by path. root is the repository; platforms are
// GOOS/GOARCH.
func Collect(ctx context.Context, root string, platforms, programs []string) ([]Module, error) {
	modules := map[string]*Module{}
	for _, platform := range platforms {
		packages, err := list(ctx, root, platform, programs)
		if err != nil {
			return nil, err
		}
		for _, p := range packages {
			if err := add(modules, p); err != nil {
				return nil, err
			}
		}
	}
	var out []Module
	var errs []error
	for _, path := range slices.Sorted(maps.Keys(modules)) {
		m := modules[path]
		var err error
		m.Licenses, err = identify(m.Texts)
		if err != nil {
			errs = append(errs, fmt.Errorf("identifying the licence of %s %s: %w", m.Path, m.Version, err))
		}
		out = append(out, *m)
	}
	return out, errors.Join(errs...)
}

// list returns all packages that programs are made of on a platform.
func list(ctx context.Context, root, platform string, programs []string) ([]listed, error) {
	goos, goarch, _ := strings.Cut(platform, "/")
	args := append([]string{"list", "-deps", "-json=Dir,Standard,Module"}, programs...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("listing the packages of %s: %w: %s", strings.Join(programs, ", "), err, stderr.Bytes())
	}
	var out []listed
	for d := json.NewDecoder(bytes.NewReader(text)); ; {
		var p listed
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("decoding the packages of %s: %w", strings.Join(programs, ", "), err)
		}
		out = append(out, p)
	}
}

// add adds a package's module, with what lies beside the package and above it.
func add(modules map[string]*Module, p listed) error {
	path, version, dir := Std, runtime.Version(), ""
	switch {
	case p.Standard:
		// What the standard library vendors has the same authors and licence.
		root, err := goroot(p.Dir)
		if err != nil {
			return err
		}
		dir, p.Dir = root, root
	case p.Module == nil:
		return fmt.Errorf("package in %s is of no module", p.Dir)
	case p.Module.Main:
		return nil
	case p.Module.Replace != nil:
		// One in a directory has no version.
		path, dir = p.Module.Replace.Path, p.Module.Replace.Dir
		version = cmp.Or(p.Module.Replace.Version, p.Module.Version)
	default:
		path, version, dir = p.Module.Path, p.Module.Version, p.Module.Dir
	}
	m := modules[path]
	if m == nil {
		m = &Module{Path: path, Version: version, Texts: map[string]string{}}
		modules[path] = m
	}
	for at := p.Dir; ; at = filepath.Dir(at) {
		if err := m.read(dir, at); err != nil {
			return fmt.Errorf("reading the licences of %s: %w", path, err)
		}
		if at == dir || len(at) <= len(dir) {
			return nil
		}
	}
}

// goroot returns the directory above src.
func goroot(dir string) (string, error) {
	root, _, found := strings.Cut(filepath.ToSlash(dir), "/src/")
	if !found {
		return "", fmt.Errorf("package in %s is not below GOROOT/src", dir)
	}
	return filepath.FromSlash(root), nil
}

// read reads the licences and notices of one directory of a module.
func (m *Module) read(root, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() || !files.MatchString(e.Name()) || foreign.MatchString(e.Name()) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		m.Texts[filepath.ToSlash(name)] = string(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")))
	}
	return nil
}

// identify returns the licences of texts. A text without one that is known, or with one that is not allowed, is an
// error: a person must read it.
func identify(texts map[string]string) ([]string, error) {
	found := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		if notices.MatchString(filepath.Base(name)) {
			continue
		}
		matches := licensecheck.Scan([]byte(texts[name])).Match
		if len(matches) == 0 {
			return nil, fmt.Errorf("%s holds no licence that is known", name)
		}
		for _, match := range matches {
			if match.IsURL {
				continue
			}
			if !slices.Contains(allowed, match.ID) {
				return nil, fmt.Errorf("%s holds %s, which is none of %s", name, match.ID, strings.Join(allowed, ", "))
			}
			found[match.ID] = true
		}
	}
	if len(found) == 0 {
		return nil, errors.New("there is no licence")
	}
	return slices.Sorted(maps.Keys(found)), nil
}
