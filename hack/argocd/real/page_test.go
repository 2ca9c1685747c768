package real

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// page collects what docs/gitops.md shows. With ARGOCD_RECORD set, write stores it there.
type page struct {
	blocks map[string]string
}

const gitopsPage = root + "/docs/gitops.md"

// block matches a named block of the page.
var block = regexp.MustCompile("(?s)(<!-- shown: ([a-z-]+) -->\n)```\n.*?\n```\n")

func (p *page) add(name, text string) { p.blocks[name] = text }

// write replaces the page's blocks. If all steps have run, each must have been added.
func (p *page) write(t *testing.T, all bool) {
	t.Helper()
	text := string(read(t, gitopsPage))
	seen := map[string]bool{}
	text = block.ReplaceAllStringFunc(text, func(old string) string {
		parts := block.FindStringSubmatch(old)
		shown, ok := p.blocks[parts[2]]
		if !ok && !all {
			return old
		}
		if !ok {
			t.Errorf("the page has a block %s that no step shows", parts[2])
		}
		seen[parts[2]] = true
		return parts[1] + "```\n" + strings.TrimRight(shown, "\n") + "\n```\n"
	})
	for name := range p.blocks {
		if !seen[name] {
			t.Errorf("the page has no block %s", name)
		}
	}
	if os.Getenv("ARGOCD_RECORD") != "" && !t.Failed() {
		noError(t, os.WriteFile(gitopsPage, []byte(text), 0o644))
	}
}
