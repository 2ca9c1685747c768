// Command grafana generates the dashboards of config/grafana, and draws what they show:
//
//	go -C hack/grafana run . write
//	go -C hack/grafana run . draw --data DIR
//
// write writes a JSON file for each dashboard. draw reads the answers of a Prometheus to the dashboards' queries, which
// `make test-prometheus GRAFANA_DATA=DIR` records, and writes a picture of each dashboard to docs. The pictures are
// drawn by this program, and not by Grafana.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "grafana: "+err.Error())
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("grafana", flag.ContinueOnError)
	out := flags.String("out", "../../config/grafana", "directory of the dashboards")
	data := flags.String("data", "", "directory of the recorded answers")
	pictures := flags.String("pictures", "../../docs", "directory of the pictures")
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case command == "write":
		return writeAll(*out)
	case command == "draw" && *data != "":
		return drawAll(*out, *data, *pictures)
	default:
		return errors.New("usage: grafana write [--out DIR] | grafana draw --data DIR [--pictures DIR]")
	}
}

// targetName is the dashboard of one target.
const targetName = "target"

// names are the names of the dashboards. Each dashboard is a file NAME.json.
func names() []string { return []string{"fleet", targetName} }

func writeAll(dir string) error {
	for _, name := range names() {
		text, err := generate(name)
		if err != nil {
			return fmt.Errorf("generating dashboard %s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".json"), text, 0o644); err != nil {
			return fmt.Errorf("writing dashboard %s: %w", name, err)
		}
	}
	return nil
}

// generate returns a dashboard as JSON. It is an error if the SDK does not find it valid.
func generate(name string) ([]byte, error) {
	build := fleetDashboard
	if name == targetName {
		build = targetDashboard
	}
	plugins.RegisterDefaultPlugins()
	d, err := build()
	if err != nil {
		return nil, err
	}
	number(&d)
	if err := d.Validate(); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(d, "", " ")
	if err != nil {
		return nil, err
	}
	return append(text, '\n'), nil
}

// number numbers the panels, so that links to one of them stay valid.
func number(d *document) {
	for i := range d.Panels {
		id := uint32(i + 1)
		if p := d.Panels[i]; p.Panel != nil {
			p.Panel.Id = &id
		} else {
			p.RowPanel.Id = id
		}
	}
}
