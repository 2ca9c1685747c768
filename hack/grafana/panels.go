package main

import (
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
	"github.com/grafana/grafana-foundation-sdk/go/units"
)

const (
	fleetUID  = "hlparser-fleet"
	targetUID = "hlparser-target"
	tag       = "hyperliquid-parser"
	docsURL   = "https://github.com/hlparser/hyperliquid-parser-operator/blob/main/docs/"

	// unitPercent shows a share from 0 to 1 as a percentage.
	unitPercent = units.PercentUnit
	unitRate    = units.BytesPerSecondIEC
	unitBytes   = units.BytesIEC
	unitSeconds = units.Seconds
	unitCount   = units.Short
	unitPerSec  = units.CountsPerSecond

	green  = "green"
	yellow = "yellow"
	orange = "orange"
	red    = "red"
	blue   = "blue"
)

// Fields of a table, as Grafana calls what Prometheus answers.
const (
	fieldTarget = "target"
	fieldValue  = "Value"
)

// document and builder are of the first version of the dashboards' schema, which every Grafana imports and the sidecar
// reads. The SDK prefers the second, which older ones do not know.
type (
	document = dashboard.Dashboard        //nolint:staticcheck // see above
	builder  = dashboard.DashboardBuilder //nolint:staticcheck // see above
)

// onRequest ends the description of a panel some of whose metrics a parser exports on request only.
const onRequest = " Needs `metrics=all` ([docs](" + docsURL + "metrics.md#on-request)); no data without it."

// runbook returns a link to a section of the runbook.
func runbook(section, anchor string) string {
	return fmt.Sprintf("[%s](%srunbook.md#%s)", section, docsURL, anchor)
}

func source() common.DataSourceRef {
	return common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr("${datasource}")}
}

// query is an expression, and the name of its series.
type query struct{ expr, legend string }

func (q query) build(ref int) *prometheus.DataqueryBuilder {
	return prometheus.NewDataqueryBuilder().Expr(q.expr).LegendFormat(q.legend).Datasource(source()).
		RefId(string(rune('A' + ref))).EditorMode(prometheus.QueryEditorModeCode)
}

func overTime(queries []query) []cog.Builder[variants.Dataquery] {
	out := make([]cog.Builder[variants.Dataquery], 0, len(queries))
	for i, q := range queries {
		out = append(out, q.build(i).Range())
	}
	return out
}

// threshold is a colour from a value on.
type threshold struct {
	from  float64
	color string
}

// colored returns thresholds above a first colour.
func colored(base string, above ...threshold) *dashboard.ThresholdsConfigBuilder {
	steps := append(make([]dashboard.Threshold, 0, 1+len(above)), dashboard.Threshold{Color: base})
	for _, t := range above {
		steps = append(steps, dashboard.Threshold{Value: cog.ToPtr(t.from), Color: t.color})
	}
	return dashboard.NewThresholdsConfigBuilder().Mode(dashboard.ThresholdsModeAbsolute).Steps(steps)
}

// figure shows the present value of a query. It is an instant query: the last value of a range would stay after the end
// of its measurement.
func figure(
	title, unit string, colors *dashboard.ThresholdsConfigBuilder, expr, description string,
) *stat.PanelBuilder {
	return stat.NewPanelBuilder().Title(title).Description(description).Unit(unit).Thresholds(colors).
		Datasource(source()).Height(4).Span(3).GraphMode(common.BigValueGraphModeNone).
		ColorMode(common.BigValueColorModeValue).
		ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"last"})).
		WithTarget(query{expr: expr}.build(0).Instant())
}

// lines draws queries over time, half as wide as the dashboard.
func lines(title, unit, description string, queries ...query) *timeseries.PanelBuilder {
	return timeseries.NewPanelBuilder().Title(title).Description(description).Unit(unit).Datasource(source()).
		Height(8).Span(12).Min(0).FillOpacity(8).ShowPoints(common.VisibilityModeNever).
		Legend(common.NewVizLegendOptionsBuilder().DisplayMode(common.LegendDisplayModeTable).
			Placement(common.LegendPlacementRight).ShowLegend(true).Calcs([]string{"lastNotNull", "max"})).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).
			Sort(common.SortOrderDescending)).
		Targets(overTime(queries))
}

// targetLines draws series that have a target, and lead to its dashboard.
func targetLines(title, unit, description, expr string) *timeseries.PanelBuilder {
	return lines(title, unit, description, query{expr, legendTarget}).DataLinks(toTarget("${__field.labels.target}"))
}

// stacked piles series up.
func stacked(p *timeseries.PanelBuilder) *timeseries.PanelBuilder {
	return p.FillOpacity(40).Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal))
}

// bars draws what happened between two points.
func bars(title, unit, description string, queries ...query) *timeseries.PanelBuilder {
	return lines(title, unit, description, queries...).DrawStyle(common.GraphDrawStyleBars).FillOpacity(60)
}

// limited draws thresholds as lines.
func limited(p *timeseries.PanelBuilder, colors *dashboard.ThresholdsConfigBuilder) *timeseries.PanelBuilder {
	return p.Thresholds(colors).ThresholdsStyle(
		common.NewGraphThresholdsStyleConfigBuilder().Mode(common.GraphThresholdsStyleModeDashed))
}

// flags draws series of 0 and 1 as bands, with a text and a colour for 1.
func flags(title, text, color, description string, queries ...query) *statetimeline.PanelBuilder {
	is := dashboard.ValueMap{Type: dashboard.MappingTypeValueToText, Options: map[string]dashboard.ValueMappingResult{
		"0": {Text: cog.ToPtr("no"), Color: cog.ToPtr("transparent"), Index: cog.ToPtr(int32(0))},
		"1": {Text: cog.ToPtr(text), Color: cog.ToPtr(color), Index: cog.ToPtr(int32(1))},
	}}
	return statetimeline.NewPanelBuilder().Title(title).Description(description).Datasource(source()).
		Height(7).Span(12).ShowValue(common.VisibilityModeNever).
		Mappings([]dashboard.ValueMapping{{ValueMap: &is}}).
		Legend(common.NewVizLegendOptionsBuilder().DisplayMode(common.LegendDisplayModeList).
			Placement(common.LegendPlacementBottom).ShowLegend(false)).
		Targets(overTime(queries))
}

// column is a column of a table.
type column struct {
	field string // as Prometheus calls it
	title string
	unit  string
	links []cog.Builder[dashboard.DashboardLink]
}

// rows is a table of the series that a query has now.
func rows(title, description, expr string, columns ...column) *table.PanelBuilder {
	order, rename, hidden := map[string]int{}, map[string]string{}, map[string]bool{"Time": true}
	p := table.NewPanelBuilder().Title(title).Description(description).Datasource(source()).Height(8).
		// The SDK does not find its own default valid, which has no reducer.
		Footer(common.NewTableFooterOptionsBuilder().Show(false).Reducer([]string{"sum"})).
		WithTarget(query{expr: expr}.build(0).Instant().Format(prometheus.PromQueryFormatTable))
	for i, c := range columns {
		if c.title == "" {
			hidden[c.field] = true
			continue
		}
		order[c.field], rename[c.field] = i, c.title
		var properties []dashboard.DynamicConfigValue
		if c.unit != "" {
			properties = append(properties, dashboard.DynamicConfigValue{Id: "unit", Value: c.unit})
		}
		if c.links != nil {
			properties = append(properties, dashboard.DynamicConfigValue{Id: "links", Value: built(c.links)})
		}
		if properties != nil {
			p.OverrideByName(c.title, properties)
		}
	}
	return p.WithTransformation(dashboard.DataTransformerConfig{Id: "organize", Options: map[string]any{
		"excludeByName": hidden, "indexByName": order, "renameByName": rename,
	}})
}

// built returns links as an override holds them. Their builders cannot fail.
func built(links []cog.Builder[dashboard.DashboardLink]) []map[string]any {
	out := make([]map[string]any, 0, len(links))
	for _, l := range links {
		link, err := l.Build()
		if err != nil {
			panic(err)
		}
		out = append(out, map[string]any{"title": link.Title, "url": *link.Url, "targetBlank": link.TargetBlank})
	}
	return out
}

// toTarget links to the dashboard of a target that Grafana fills in.
func toTarget(target string) []cog.Builder[dashboard.DashboardLink] {
	return []cog.Builder[dashboard.DashboardLink]{dashboard.NewDashboardLinkBuilder("Open the target").
		Url("/d/" + targetUID + "?var-datasource=${datasource}&var-namespace=${namespace}&var-name=${name}&var-target=" +
			target + "&${__url_time_range}")}
}

func toRunbook(anchor string) []cog.Builder[dashboard.DashboardLink] {
	return []cog.Builder[dashboard.DashboardLink]{
		dashboard.NewDashboardLinkBuilder("Open the runbook").Url(docsURL + "runbook.md#" + anchor).TargetBlank(true),
	}
}

// newDashboard returns a dashboard with its variables and links, without panels.
func newDashboard(title, uid, from, description string) *builder {
	b := dashboard.NewDashboardBuilder(title) //nolint:staticcheck // see document
	return b.Uid(uid).Description(description).Tags([]string{tag}).
		Refresh("30s").Time(from, "now").Timezone("utc").Tooltip(dashboard.DashboardCursorSyncCrosshair).Readonly().
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("Data source").Type("prometheus")).
		WithVariable(variable("namespace", "Namespace", `label_values(hlparser_fleet_targets, namespace)`)).
		WithVariable(variable("name", "Object", `label_values(hlparser_fleet_targets{namespace="$namespace"}, name)`)).
		Link(dashboard.NewDashboardLinkBuilder("Runbook").Type(dashboard.DashboardLinkTypeLink).
			Url(docsURL + "runbook.md#verdicts").Icon("doc").TargetBlank(true))
}

// toDashboard links from one dashboard to another, with the variables and the time.
func toDashboard(title, uid string) *dashboard.DashboardLinkBuilder {
	return dashboard.NewDashboardLinkBuilder(title).Type(dashboard.DashboardLinkTypeLink).Url("/d/" + uid).
		Icon("dashboard").IncludeVars(true).KeepTime(true)
}

func variable(name, label, values string) *dashboard.QueryVariableBuilder {
	return dashboard.NewQueryVariableBuilder(name).Label(label).
		Query(dashboard.StringOrMap{String: cog.ToPtr(values)}).Definition(values).Datasource(source()).
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).Sort(dashboard.VariableSortAlphabeticalAsc)
}

// annotation marks when an expression has values.
func annotation(name, color, expr, title string) *dashboard.AnnotationQueryBuilder {
	return dashboard.NewAnnotationQueryBuilder().Name(name).Datasource(source()).Enable(true).IconColor(color).
		Expr(expr).TitleFormat(title).Step("30s")
}

func row(title string) *dashboard.RowBuilder { return dashboard.NewRowBuilder(title) }
