package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
)

const configDir = "../../config/grafana"

// maxDashboard bounds a dashboard, in bytes: kubectl apply stores all of a ConfigMap in an annotation, and an object's
// annotations may have at most 256 KiB.
const maxDashboard = 200_000

// committed returns a dashboard of config/grafana, without its defaults filled in.
func committed(t *testing.T, name string) (text []byte, d document) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(configDir, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	plugins.RegisterDefaultPlugins()
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return text, d
}

func TestTheDashboardsAreUpToDate(t *testing.T) {
	for _, name := range names() {
		want, err := generate(name)
		if err != nil {
			t.Fatal(err)
		}
		if text, _ := committed(t, name); !bytes.Equal(text, want) {
			t.Errorf("%s.json differs from what is generated: run make manifests", name)
		}
	}
}

// TestTheSDKFindsTheDashboardsValid also fails for a field that the schema does not have.
func TestTheSDKFindsTheDashboardsValid(t *testing.T) {
	for _, name := range names() {
		text, d := committed(t, name)
		if err := d.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var strict document
		// It returns an empty list of errors if all is well.
		if err := strict.UnmarshalJSONStrict(text); err != nil && err.Error() != "" {
			t.Errorf("%s: %v", name, err)
		}
		if len(text) > maxDashboard {
			t.Errorf("%s has %d bytes, at most %d can be applied", name, len(text), maxDashboard)
		}
	}
	var strict document
	if err := strict.UnmarshalJSONStrict([]byte(`{"title": "x", "titel": "y"}`)); err == nil || err.Error() == "" {
		t.Error("an unknown field passes")
	}
}

// TestADashboardDoesNotDependOnWhereItIsInstalled: it has a fixed address, a time zone, a refresh, and the data source
// that the reader chooses.
func TestADashboardDoesNotDependOnWhereItIsInstalled(t *testing.T) {
	uids := map[string]string{"fleet": fleetUID, "target": targetUID}
	for _, name := range names() {
		text, d := committed(t, name)
		if d.Uid == nil || *d.Uid != uids[name] {
			t.Errorf("%s has another uid", name)
		}
		if d.Timezone == nil || *d.Timezone != "utc" || d.Refresh == nil || *d.Refresh != "30s" || d.Time == nil {
			t.Errorf("%s has another time zone, refresh or range", name)
		}
		if d.Id != nil {
			t.Errorf("%s has the id of one Grafana", name)
		}
		sources := regexp.MustCompile(`"uid": "([^"]*)"`).FindAllSubmatch(text, -1)
		for _, m := range sources {
			if uid := string(m[1]); uid != "${datasource}" && uid != uids[name] {
				t.Errorf("%s has the data source %s", name, uid)
			}
		}
		if len(sources) < 50 {
			t.Errorf("%s has %d data sources", name, len(sources))
		}
	}
}

// links matches the links into the documentation.
var links = regexp.MustCompile(regexp.QuoteMeta(docsURL) + `([\w./-]+)#([\w-]+)`)

// anchors returns the headings of a page, as GitHub makes anchors of them.
func anchors(t *testing.T, page string) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	headings := regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllSubmatch(text, -1)
	out := make([]string, 0, len(headings))
	for _, m := range headings {
		out = append(out, strings.ReplaceAll(strings.ToLower(string(m[1])), " ", "-"))
	}
	return out
}

func TestLinksLeadToSectionsAndDashboards(t *testing.T) {
	for _, name := range names() {
		text, _ := committed(t, name)
		found := links.FindAllSubmatch(text, -1)
		for _, m := range found {
			if !slices.Contains(anchors(t, string(m[1])), string(m[2])) {
				t.Errorf("%s: %s has no section %s", name, m[1], m[2])
			}
		}
		if len(found) < 10 {
			t.Errorf("%s has %d links into the documentation", name, len(found))
		}
		for _, m := range regexp.MustCompile(`"/d/([\w-]+)`).FindAllSubmatch(text, -1) {
			if uid := string(m[1]); uid != fleetUID && uid != targetUID {
				t.Errorf("%s links to the dashboard %s", name, uid)
			}
		}
	}
}

// TestEachPanelSaysWhatItShowsAndWhatToDo: title, description, unit, and a legend if there can be several series.
func TestEachPanelSaysWhatItShowsAndWhatToDo(t *testing.T) {
	for _, name := range names() {
		_, d := committed(t, name)
		titles, ids := map[string]bool{}, map[uint32]bool{}
		for _, either := range d.Panels {
			if either.RowPanel != nil {
				if either.RowPanel.Title == nil || *either.RowPanel.Title == "" {
					t.Errorf("%s: a row has no title", name)
				}
				ids[either.RowPanel.Id] = true
				continue
			}
			p := either.Panel
			if p.Title == nil || *p.Title == "" || titles[*p.Title] {
				t.Fatalf("%s: panel %d has no title, or that of another", name, *p.Id)
			}
			titles[*p.Title], ids[*p.Id] = true, true
			if p.Description == nil || len(*p.Description) < 5 || !strings.HasSuffix(*p.Description, ".") {
				t.Errorf("%s: %s has no description", name, *p.Title)
			}
			if (p.Type == "stat" || p.Type == "timeseries") && p.FieldConfig.Defaults.Unit == nil {
				t.Errorf("%s: %s has no unit", name, *p.Title)
			}
			if p.Type == "stat" && len(p.FieldConfig.Defaults.Thresholds.Steps) == 0 {
				t.Errorf("%s: %s has no thresholds", name, *p.Title)
			}
			for _, target := range p.Targets {
				q, ok := target.(*prometheus.Dataquery)
				if !ok {
					t.Fatalf("%s: %s asks something that is no Prometheus: %T", name, *p.Title, target)
				}
				instant := q.Instant != nil && *q.Instant
				if instant != (p.Type == "stat" || p.Type == "table") {
					t.Errorf("%s: %s is of type %s, and its query is instant: %t", name, *p.Title, p.Type, instant)
				}
				if !instant && (q.LegendFormat == nil || *q.LegendFormat == "") {
					t.Errorf("%s: %s has no legend", name, *p.Title)
				}
			}
		}
		if len(ids) != len(d.Panels) || len(ids) < 25 {
			t.Errorf("%s has %d panels and %d numbers of panels", name, len(d.Panels), len(ids))
		}
	}
}

// TestPanelsFillTheWidthAndDoNotOverlap checks the places of the panels.
func TestPanelsFillTheWidthAndDoNotOverlap(t *testing.T) {
	for _, name := range names() {
		var b board
		if err := readJSON(filepath.Join(configDir, name+".json"), &b); err != nil {
			t.Fatal(err)
		}
		taken := map[[2]float64]string{}
		bottom := 0.0
		for _, p := range b.Panels {
			at := p.GridPos
			bottom = max(bottom, at.Y+at.H)
			for x := at.X; x < at.X+at.W; x++ {
				for y := at.Y; y < at.Y+at.H; y++ {
					if other, ok := taken[[2]float64{x, y}]; ok {
						t.Fatalf("%s: %s lies on %s", name, p.Title, other)
					}
					taken[[2]float64{x, y}] = p.Title
				}
			}
		}
		if got, want := float64(len(taken)), 24*bottom; got != want {
			t.Errorf("%s: panels fill %.0f of %.0f cells", name, got, want)
		}
	}
}

// example is a recording with two series for each query. One of them begins late.
func example(b board) recording {
	r := recording{From: 1000, To: 1060, Panels: map[string][]answer{}}
	for _, p := range b.Panels {
		for range p.Targets {
			var one, two series
			one.Metric = map[string]string{"target": "node<1>", "stream": "Fills"}
			for at := 1000.0; at <= 1060; at += 10 {
				one.Values = append(one.Values, sample{at, float64(int(at/10) % 2)})
				if at > 1030 {
					two.Values = append(two.Values, sample{at, 1e9})
				}
			}
			id := strconv.Itoa(p.ID)
			r.Panels[id] = append(r.Panels[id], answer{one, two})
		}
	}
	return r
}

// wellFormed fails for a picture that is no XML, or that has a coordinate that is no number.
func wellFormed(t *testing.T, picture []byte) {
	t.Helper()
	decoder := xml.NewDecoder(bytes.NewReader(picture))
	for {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if bytes.Contains(picture, []byte("NaN")) || bytes.Contains(picture, []byte("Inf")) {
		t.Error("a coordinate of the picture is no number")
	}
}

func TestAPictureHasEachPanelAndInventsNoValue(t *testing.T) {
	for _, name := range names() {
		var b board
		if err := readJSON(filepath.Join(configDir, name+".json"), &b); err != nil {
			t.Fatal(err)
		}
		full, empty := picture(b, example(b)), picture(b, recording{From: 0, To: 60})
		wellFormed(t, full)
		wellFormed(t, empty)
		panels := 0
		for _, p := range b.Panels {
			if !bytes.Contains(full, []byte(escape(p.Title))) {
				t.Errorf("the picture of %s lacks %s", name, p.Title)
			}
			if p.Type != "row" {
				panels++
			}
		}
		if got := bytes.Count(empty, []byte(noData)); got != panels {
			t.Errorf("without data, %d of %d panels of %s say so", got, panels, name)
		}
	}
}

// TestThePicturesInTheDocsAreSmallAndOfTheseDashboards: a panel that is renamed or added needs new pictures.
func TestThePicturesInTheDocsAreSmallAndOfTheseDashboards(t *testing.T) {
	for _, name := range names() {
		text, err := os.ReadFile("../../docs/grafana-" + name + ".svg")
		if err != nil {
			t.Fatal(err)
		}
		wellFormed(t, text)
		if len(text) > 200_000 {
			t.Errorf("the picture of %s has %d bytes", name, len(text))
		}
		var b board
		if err := readJSON(filepath.Join(configDir, name+".json"), &b); err != nil {
			t.Fatal(err)
		}
		for _, p := range b.Panels {
			if !bytes.Contains(text, []byte(">"+escape(p.Title)+"<")) {
				t.Errorf("the picture of %s lacks %s: run make dashboard-pictures", name, p.Title)
			}
		}
	}
}

func TestValuesHaveTheirUnits(t *testing.T) {
	for _, test := range []struct {
		unit  string
		value float64
		want  string
	}{
		{unitBytes, 0, "0 B"}, {unitBytes, 1536, "1.5 KiB"}, {unitBytes, 5 << 30, "5 GiB"}, {unitRate, 1 << 20, "1 MiB/s"},
		{unitSeconds, 0.0000042, "4.2 µs"}, {unitSeconds, 0.0123, "12.3 ms"}, {unitSeconds, 42, "42 s"},
		{unitSeconds, 3600, "60 min"}, {unitPercent, 0.5, "50 %"}, {unitPerSec, 1234, "1.2K/s"}, {unitCount, 0.25, "0.25"},
		{unitCount, 5000, "5K"},
	} {
		if got := format(test.unit, test.value); got != test.want {
			t.Errorf("%g of %s is %q, want %q", test.value, test.unit, got, test.want)
		}
	}
}
