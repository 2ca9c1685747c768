package license

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// File is the name of the file of licences in the repository and in the image.
const File = "THIRD_PARTY_LICENSES"

// Programs returns the packages of the image's programs.
func Programs() []string { return []string{"./cmd/manager", "./cmd/hlparser"} }

// Platforms returns those that an image is built for.
func Platforms() []string { return []string{"linux/amd64", "linux/arm64"} }

const heading = `Licences of the Go modules that are linked into manager and hlparser, and of the Go standard library.
Written by make licenses. The bill of materials of an image has the versions.

`

// Format returns a list of modules and the text of each licence and notice, once. It has no versions, so that it
// changes only with what it is about.
func Format(modules []Module) []byte {
	var out bytes.Buffer
	out.WriteString(heading)
	table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	holders := map[string][]string{} // by text
	for _, m := range modules {
		_, _ = fmt.Fprintf(table, "%s\t%s\n", m.Path, strings.Join(m.Licenses, ", ")) // a Buffer takes everything
		for _, name := range slices.Sorted(maps.Keys(m.Texts)) {
			text := strings.TrimSpace(m.Texts[name])
			holders[text] = append(holders[text], m.Path+": "+name)
		}
	}
	_ = table.Flush()
	byHolder := slices.SortedFunc(maps.Keys(holders), func(a, b string) int {
		return slices.Compare(holders[a], holders[b])
	})
	for _, text := range byHolder {
		fmt.Fprintf(&out, "\n%s\n%s\n\n%s\n", strings.Repeat("=", 80), strings.Join(holders[text], "\n"), text)
	}
	return out.Bytes()
}
