package report

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/version"
)

const (
	// maxScrapes bounds the concurrent scrapes of the metrics.
	maxScrapes = 4
	// detailQuery is the parameter by which a scrape asks for more than the default metrics, by the names of
	// config.ParseMetricsDetail.
	detailQuery = "metrics"
)

// scrapes serves the metrics.
type scrapes struct {
	id       Identity
	registry *prometheus.Registry
	inFlight chan struct{}
}

func newScrapes(id Identity, source Source) *scrapes {
	s := &scrapes{id: id, registry: prometheus.NewRegistry(), inFlight: make(chan struct{}, maxScrapes)}
	s.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newCollector(id, source),
		version.Get().NewCollector("hlparser_build_info", "the parser"),
	)
	if d := source.Distributions(); d != nil {
		s.registry.MustRegister(d)
	}
	return s
}

// ServeHTTP serves one scrape.
func (s *scrapes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	details, err := s.details(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case s.inFlight <- struct{}{}:
		defer func() { <-s.inFlight }()
	default:
		http.Error(w, fmt.Sprintf("there are %d scrapes already", maxScrapes), http.StatusServiceUnavailable)
		return
	}
	promhttp.HandlerFor(s.gatherer(details), promhttp.HandlerOpts{
		EnableOpenMetrics: true, EnableOpenMetricsTextCreatedSamples: slices.Contains(details, config.CreatedSamples),
		ProcessStartTime: s.id.StartedAt,
	}).ServeHTTP(w, r)
}

// details returns what a scrape with the query gets beyond the default metrics.
func (s *scrapes) details(query url.Values) ([]config.MetricsDetail, error) {
	details := slices.Clone(s.id.Metrics)
	for _, name := range query[detailQuery] {
		detail, err := config.ParseMetricsDetail(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", detailQuery, err)
		}
		details = append(details, detail)
	}
	return details, nil
}

// gatherer returns the registry with what a scrape gets that asks for these details.
func (s *scrapes) gatherer(details []config.MetricsDetail) prometheus.GathererFunc {
	return func() ([]*dto.MetricFamily, error) {
		families, err := s.registry.Gather()
		if !slices.Contains(details, config.AllMetrics) {
			families = slices.DeleteFunc(families, func(f *dto.MetricFamily) bool { return !defaultMetrics[f.GetName()] })
		}
		if !slices.Contains(details, config.ClassicBuckets) {
			for _, f := range families {
				for _, m := range f.GetMetric() {
					if h := m.GetHistogram(); h != nil && h.Schema != nil {
						h.Bucket = nil
					}
				}
			}
		}
		return families, err
	}
}

// textFormat is that of text.
var textFormat = expfmt.NewFormat(expfmt.TypeTextPlain)

// text returns all metrics as text, at most limit bytes, up to the last whole line of that. A family that cannot be
// gathered or encoded is a comment.
func (s *scrapes) text(limit int) []byte {
	var out bytes.Buffer
	families, err := s.gatherer([]config.MetricsDetail{config.AllMetrics, config.ClassicBuckets})()
	if err != nil {
		fmt.Fprintf(&out, "# gathering: %q\n", err)
	}
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&out, f); err != nil {
			fmt.Fprintf(&out, "# encoding %s: %q\n", f.GetName(), err)
		}
	}
	if out.Len() <= limit {
		return out.Bytes()
	}
	whole := out.Bytes()[:limit]
	return whole[:bytes.LastIndexByte(whole, '\n')+1]
}
