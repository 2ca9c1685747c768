package docs

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/hlparser/hyperliquid-parser-operator/internal/kubectl"
)

var (
	shellBlock  = regexp.MustCompile("(?ms)^ *```sh\n(.*?)^ *```$")
	commandSpan = regexp.MustCompile("`(kubectl [^`]+)`")
	// word is a part of a command line: quoted, or up to a space or an operator of the shell.
	word = regexp.MustCompile(`^(?:'[^']*'|"[^"]*"|[^\s'"|&;<>()#]|[^\s'"|&;<>()])+`)
)

// commandsOf returns the command lines of kubectl in a page's shell blocks and code spans, as words.
func commandsOf(page string) (commands [][]string) {
	var lines []string
	for _, m := range shellBlock.FindAllStringSubmatch(page, -1) {
		text := strings.ReplaceAll(m[1], "\\\n", " ")
		for line := range strings.Lines(text) {
			lines = append(lines, line)
		}
	}
	for _, m := range commandSpan.FindAllStringSubmatch(shellBlock.ReplaceAllString(page, ""), -1) {
		lines = append(lines, strings.ReplaceAll(m[1], "\n", " "))
	}
	for _, line := range lines {
		for _, m := range regexp.MustCompile(`(?:^|[|;&(]|\$\()\s*kubectl `).FindAllStringIndex(line, -1) {
			if words := wordsOf(line[m[1]:]); len(words) > 0 {
				commands = append(commands, words)
			}
		}
	}
	return commands
}

// wordsOf splits a command line up to an operator of the shell or a comment, as a shell does.
func wordsOf(line string) (words []string) {
	for {
		line = strings.TrimLeft(line, " \t\n")
		if strings.HasPrefix(line, "#") {
			return words
		}
		found := word.FindString(line)
		if found == "" {
			return words
		}
		line = line[len(found):]
		words = append(words, strings.NewReplacer(`'`, "", `"`, "").Replace(found))
	}
}

// pageTexts returns the documentation by its path.
func pageTexts(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, path := range append(paths, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimPrefix(path, root+"/")] = string(text)
	}
	return out
}

// TestCommandsOfKubectlHlpParse holds every command line of kubectl hlp in the documentation against the plugin.
func TestCommandsOfKubectlHlpParse(t *testing.T) {
	n := 0
	for page, text := range pageTexts(t) {
		for _, words := range commandsOf(text) {
			if words[0] != "hlp" || len(words) == 1 {
				continue
			}
			n++
			if err := parseHlp(words[1:]); err != nil {
				t.Errorf("%s: kubectl %s: %v", page, strings.Join(words, " "), err)
			}
		}
	}
	if n == 0 {
		t.Error("the documentation has no command of kubectl hlp")
	}
}

// parseHlp returns an error unless kubectl hlp has the command and all of its flags.
func parseHlp(words []string) error {
	root := kubectl.Command(genericiooptions.NewTestIOStreamsDiscard())
	root.InitDefaultCompletionCmd(words...) // as Execute does
	cmd, rest, err := root.Find(words)
	if err != nil {
		return err
	}
	return cmd.ParseFlags(rest)
}

// TestCommandsOfKubectlInTheRunbookParse holds the command lines of the runbook, and of the page that it leads to,
// against the real kubectl: with --help after all flags it parses them and does nothing else.
func TestCommandsOfKubectlInTheRunbookParse(t *testing.T) {
	program, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("kubectl is not in the path")
	}
	seen := 0
	for page, text := range pageTexts(t) {
		if page != runbook && page != "docs/troubleshooting.md" {
			continue
		}
		for _, words := range commandsOf(text) {
			if words[0] == "hlp" {
				continue
			}
			seen++
			cmd := exec.CommandContext(t.Context(), program, append(words, "--help")...)
			cmd.Env = []string{"HOME=" + t.TempDir(), "KUBECONFIG=" + os.DevNull}
			out, err := cmd.CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte("Usage:")) {
				t.Errorf("%s: kubectl %s: %v\n%.300s", page, strings.Join(words, " "), err, out)
			}
		}
	}
	const least = 10
	if seen < least {
		t.Errorf("found only %d commands of kubectl", seen)
	}
}

func TestCommandLinesAreSplitAsAShellDoes(t *testing.T) {
	const page = "```sh\nkubectl get hlp NAME -o wide   # a comment\nx | kubectl -n a logs 'b c' | grep d &\n" +
		"kubectl get \\\n  pods\n```\nand `kubectl -n NS get hlp NAME -o jsonpath='{.status.losses}'`, `kubectl hlp why …`."
	commands := commandsOf(page)
	got := make([]string, 0, len(commands))
	for _, words := range commands {
		got = append(got, strings.Join(words, "/"))
	}
	want := "get/hlp/NAME/-o/wide -n/a/logs/b c get/pods -n/NS/get/hlp/NAME/-o/jsonpath={.status.losses} hlp/why/…"
	if text := strings.Join(got, " "); text != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	for _, wrong := range [][]string{{"why", "--colour"}, {"tpo"}, {"rollout", "undo", "--to=1"}} {
		if parseHlp(wrong) == nil {
			t.Errorf("kubectl hlp %v parses", wrong)
		}
	}
}
