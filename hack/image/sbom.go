package main

import (
	"cmp"
	"debug/buildinfo"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"github.com/hlparser/hyperliquid-parser-operator/hack/image/license"
)

// writeSBOM writes the modules that the programs in dir were built from, as the programs themselves say, with the
// licences of those modules. A module whose licence is not known is an error.
func writeSBOM(path, version string, from commit, dir string, licensed []license.Module) error {
	licenses := map[string][]string{}
	for _, m := range licensed {
		licenses[m.Path] = m.Licenses
	}
	modules := map[string]cdx.Component{}
	for _, program := range programs {
		info, err := buildinfo.ReadFile(filepath.Join(dir, program))
		if err != nil {
			return fmt.Errorf("reading what %s is built from: %w", program, err)
		}
		goVersion := info.GoVersion[len("go"):]
		modules[license.Std] = component(license.Std, "v"+goVersion, "pkg:golang/std@"+goVersion)
		for _, m := range info.Deps {
			used := m
			if m.Replace != nil {
				used = m.Replace
			}
			c := component(used.Path, used.Version, "pkg:golang/"+used.Path+"@"+used.Version)
			modules[used.Path] = c
		}
	}
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		c := modules[name]
		if len(licenses[name]) == 0 {
			return fmt.Errorf("writing the bill of materials: no licence of %s %s is known", name, c.Version)
		}
		c.Licenses = &cdx.Licenses{{Expression: strings.Join(licenses[name], " AND ")}}
		modules[name] = c
	}
	components := slices.SortedFunc(maps.Values(modules),
		func(a, b cdx.Component) int { return cmp.Compare(a.Name, b.Name) })
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{
		Timestamp: from.time.Format(time.RFC3339),
		Component: &cdx.Component{
			Type: cdx.ComponentTypeContainer, Name: "hyperliquid-parser-operator", Version: version,
			PackageURL: "pkg:golang/github.com/hlparser/hyperliquid-parser-operator@" + from.hash,
		},
	}
	bom.Components = &components
	out, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("writing the bill of materials: %w", err)
	}
	encoder := cdx.NewBOMEncoder(out, cdx.BOMFileFormatJSON)
	encoder.SetPretty(true)
	if err := encoder.Encode(bom); err != nil {
		_ = out.Close()
		return fmt.Errorf("writing the bill of materials: %w", err)
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("writing the bill of materials: %w", err)
	}
	return nil
}

func component(name, version, url string) cdx.Component {
	return cdx.Component{BOMRef: url, Type: cdx.ComponentTypeLibrary, Name: name, Version: version, PackageURL: url}
}
