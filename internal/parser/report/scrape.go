package report

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/hlparser/hyperliquid-parser-operator/internal/version"
)

const (
	// maxScrapes bounds the concurrent scrapes of the metrics.
	maxScrapes = 4
	// detailQuery is the parameter by which a scrape asks for more than the default metrics.
	detailQuery = "metrics"
)

// Detail is what a scrape gets beyond the default metrics. Each part costs the scraper series.
type Detail struct {
	All            bool // all metrics of the parser, of the Go runtime and of the process
	ClassicBuckets bool // classic buckets of the histograms, for scrapers without native histograms
	CreatedSamples bool // samples with the start of each counter, in OpenMetrics; scrapers may take them for series
}

// Add adds what a value of the parameter "metrics", or of the flag, names: all, classic-buckets or created-samples.
func (d *Detail) Add(name string) error {
	switch name {
	case "all":
		d.All = true
	case "classic-buckets":
		d.ClassicBuckets = true
	case "created-samples":
		d.CreatedSamples = true
	default:
		return fmt.Errorf("%q is unknown: write all, classic-buckets or created-samples", name)
	}
	return nil
}

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
	detail, err := s.detail(r.URL.Query())
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
	promhttp.HandlerFor(s.gatherer(detail), promhttp.HandlerOpts{
		EnableOpenMetrics: true, EnableOpenMetricsTextCreatedSamples: detail.CreatedSamples,
		ProcessStartTime: s.id.StartedAt,
	}).ServeHTTP(w, r)
}

// detail returns what a scrape with the query gets.
func (s *scrapes) detail(query url.Values) (Detail, error) {
	detail := s.id.Detail
	for _, name := range query[detailQuery] {
		if err := detail.Add(name); err != nil {
			return detail, fmt.Errorf("%s: %w", detailQuery, err)
		}
	}
	return detail, nil
}

// gatherer returns the registry with what a scrape of the detail gets.
func (s *scrapes) gatherer(detail Detail) prometheus.GathererFunc {
	return func() ([]*dto.MetricFamily, error) {
		families, err := s.registry.Gather()
		if !detail.All {
			families = slices.DeleteFunc(families, func(f *dto.MetricFamily) bool { return !defaultMetrics[f.GetName()] })
		}
		if !detail.ClassicBuckets {
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
