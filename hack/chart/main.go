// Command chart documents and packages the Helm chart in dist/chart:
//
//	go -C hack/chart run . docs
//	go -C hack/chart run . package --version v1.2.3 --out ../../dist
//
// docs writes the table of values in the chart's README.md from the comments in values.yaml. package lints the chart
// and writes an archive that `helm install` takes and `helm push` pushes to an OCI registry; the same commit gives the
// same archive.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"helm.sh/helm/v4/pkg/action"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "chart: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("chart", flag.ContinueOnError)
	dir := flags.String("chart", "../../dist/chart", "directory of the chart")
	version := flags.String("version", "", "version of the chart and tag of its image, such as v1.2.3. "+
		"Defaults to those in Chart.yaml")
	image := flags.String("image", "", "repository of the image in the archive. Defaults to that in values.yaml")
	out := flags.String("out", "../../dist", "directory of the archive")
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch command {
	case "docs":
		return writeDocs(*dir)
	case "package":
		path, err := pack(*dir, *version, *image, *out)
		if err != nil {
			return err
		}
		_, err = fmt.Println(path)
		return err
	default:
		return errors.New("usage: chart docs|package [flags]")
	}
}

// pack lints and packages the chart, and returns the path of the archive.
func pack(dir, version, image, out string) (path string, err error) {
	if err := lint(dir, nil); err != nil {
		return "", err
	}
	date, err := commitTime(dir)
	if err != nil {
		return "", err
	}
	if image != "" {
		var work string
		if work, err = os.MkdirTemp("", "chart-"); err != nil {
			return "", fmt.Errorf("copying the chart: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
		if err := withImage(dir, work, image); err != nil {
			return "", fmt.Errorf("copying the chart: %w", err)
		}
		dir = work
	}
	p := action.NewPackage()
	p.Version, p.AppVersion, p.Destination, p.SourceDateEpoch = strings.TrimPrefix(version, "v"), version, out, &date
	if path, err = p.Run(dir, nil); err != nil {
		return "", fmt.Errorf("packaging the chart: %w", err)
	}
	return path, nil
}

// withImage copies the chart, with another repository of the manager's image. Comments of its values stay.
func withImage(from, to, image string) error {
	const repository = "    repository: "
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	path := filepath.Join(to, "values.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), repository) // the manager's is the first
	_, after, ok2 := strings.Cut(rest, "\n")
	if !ok || !ok2 {
		return errors.New("values.yaml has no repository")
	}
	return os.WriteFile(path, []byte(before+repository+image+"\n"+after), 0o644)
}

// commitTime returns the time of the last commit, so that the archive does not depend on when it is made.
func commitTime(dir string) (time.Time, error) {
	cmd := exec.Command("git", "log", "-1", "--format=%ct")
	cmd.Dir = dir
	text, err := cmd.Output()
	if err != nil {
		return time.Time{}, fmt.Errorf("reading the time of the last commit: %w", err)
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("reading the time of the last commit: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// lint returns what `helm lint --strict` reports of the chart with the values.
func lint(dir string, values map[string]any) error {
	l := action.NewLint()
	l.Strict, l.Namespace = true, "hyperliquid-parser-operator-system"
	result := l.Run([]string{dir}, values)
	if len(result.Errors) > 0 {
		return fmt.Errorf("linting %s: %w", dir, errors.Join(result.Errors...))
	}
	return nil
}

// Lines of README.md between which the table of values is.
const (
	docsBegin = "<!-- values -->\n"
	docsEnd   = "<!-- /values -->\n"
)

func writeDocs(dir string) error {
	path := filepath.Join(dir, "README.md")
	readme, values, err := readDocs(dir)
	if err != nil {
		return err
	}
	text, err := withValues(readme, values)
	if err != nil {
		return fmt.Errorf("documenting %s: %w", path, err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return fmt.Errorf("documenting the values: %w", err)
	}
	return nil
}

func readDocs(dir string) (readme, values []byte, err error) {
	if readme, err = os.ReadFile(filepath.Join(dir, "README.md")); err != nil {
		return nil, nil, fmt.Errorf("reading the chart: %w", err)
	}
	if values, err = os.ReadFile(filepath.Join(dir, "values.yaml")); err != nil {
		return nil, nil, fmt.Errorf("reading the chart: %w", err)
	}
	return readme, values, nil
}

// withValues returns the README with the table of these values.
func withValues(readme, values []byte) ([]byte, error) {
	before, rest, ok := bytes.Cut(readme, []byte(docsBegin))
	_, after, ok2 := bytes.Cut(rest, []byte(docsEnd))
	if !ok || !ok2 {
		return nil, fmt.Errorf("it lacks the lines %q and %q", docsBegin, docsEnd)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(values, &doc); err != nil {
		return nil, fmt.Errorf("reading the values: %w", err)
	}
	var table strings.Builder
	table.WriteString("| value | default | what it is |\n|---|---|---|\n")
	if err := describe(&table, "", doc.Content[0]); err != nil {
		return nil, err
	}
	return bytes.Join([][]byte{before, []byte(docsBegin), []byte(table.String()), []byte(docsEnd), after}, nil), nil
}

// describe appends a row for each value below a mapping. A comment that begins with "# -- " makes a key a value; other
// keys lead to values.
func describe(out *strings.Builder, prefix string, mapping *yaml.Node) error {
	for i := 0; i < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		name := prefix + key.Value
		text, ok := comment(key.HeadComment)
		switch {
		case ok:
			shown, err := inline(value)
			if err != nil {
				return fmt.Errorf("reading value %s: %w", name, err)
			}
			fmt.Fprintf(out, "| `%s` | `%s` | %s |\n", name, shown, text)
		case value.Kind == yaml.MappingNode && len(value.Content) > 0:
			if err := describe(out, name+".", value); err != nil {
				return err
			}
		default:
			return fmt.Errorf("value %s has no comment that begins with \"# -- \"", name)
		}
	}
	return nil
}

// comment returns the description in a comment.
func comment(head string) (string, bool) {
	_, text, ok := strings.Cut("\n"+head, "\n# -- ")
	return strings.ReplaceAll(text, "\n# ", " "), ok
}

// inline returns a value in one line.
func inline(value *yaml.Node) (string, error) {
	var decoded any
	if err := value.Decode(&decoded); err != nil {
		return "", err
	}
	flow := yaml.Node{}
	if err := flow.Encode(decoded); err != nil {
		return "", err
	}
	setFlow(&flow)
	text, err := yaml.Marshal(&flow)
	if err != nil {
		return "", err
	}
	return strings.Join(strings.Fields(string(text)), " "), nil
}

func setFlow(node *yaml.Node) {
	node.Style |= yaml.FlowStyle
	for _, child := range node.Content {
		setFlow(child)
	}
}
