package kubectl

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/yaml"
)

// screens are the parts of the documentation that golden files fill.
var screens = regexp.MustCompile(`(?s)<!-- screen: (\S+) -->\n.*?<!-- end -->`)

func TestTheDocumentationHasTheScreens(t *testing.T) {
	const page = "../../docs/kubectl.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	got := screens.ReplaceAllFunc(text, func(part []byte) []byte {
		n++
		name := string(screens.FindSubmatch(part)[1])
		screen, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return []byte("<!-- screen: " + name + " -->\n\n```text\n" + string(screen) + "```\n\n<!-- end -->")
	})
	if n == 0 {
		t.Fatal("the page has no screens")
	}
	if *update {
		if err := os.WriteFile(page, got, 0o600); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(text, got) {
		t.Error("docs/kubectl.md has other screens; go test ./internal/kubectl -update writes them")
	}
}

// helps returns the help of a command and of those below it, without the flags of kubectl.
func helps(t *testing.T, root *cobra.Command, out *bytes.Buffer) {
	t.Helper()
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		out.WriteString("=== " + cmd.CommandPath() + "\n")
		cmd.SetOut(out)
		if err := cmd.Help(); err != nil {
			t.Fatal(err)
		}
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() && sub.Name() != "completion" {
				visit(sub)
			}
		}
	}
	visit(root)
}

func TestHelp(t *testing.T) {
	t.Setenv("HOME", "/home/user") // the default of a flag
	root := Command(genericiooptions.NewTestIOStreamsDiscard())
	var out bytes.Buffer
	helps(t, root, &out)
	// These are kubectl's, on every command.
	text := regexp.MustCompile(`\nGlobal Flags:\n(?:  .*\n)*`).ReplaceAllString(out.String(), "")
	golden(t, "help.txt", text)
}

func TestThePluginsManifestsNameRealCommands(t *testing.T) {
	var k9s struct {
		Plugins map[string]struct {
			Command string   `json:"command"`
			Args    []string `json:"args"`
		} `json:"plugins"`
	}
	text, err := os.ReadFile("../../config/kubectl/k9s-plugins.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &k9s); err != nil {
		t.Fatal(err)
	}
	root := Command(genericiooptions.NewTestIOStreamsDiscard())
	for name, plugin := range k9s.Plugins {
		line := strings.Join(append([]string{plugin.Command}, plugin.Args...), " ")
		_, after, found := strings.Cut(line, "kubectl hlp ")
		if !found {
			t.Errorf("%s runs %q", name, line)
			continue
		}
		words := strings.Fields(after)
		cmd, _, err := root.Find(words[:1])
		if err != nil || cmd == root {
			t.Errorf("%s: there is no command %q", name, words[0])
			continue
		}
		for _, word := range words {
			flag, isFlag := strings.CutPrefix(word, "--")
			if isFlag && cmd.Flag(flag) == nil && cmd.InheritedFlags().Lookup(flag) == nil {
				t.Errorf("%s: %s has no flag --%s", name, words[0], flag)
			}
		}
	}
	if len(k9s.Plugins) == 0 {
		t.Error("there are no plugins")
	}
}
