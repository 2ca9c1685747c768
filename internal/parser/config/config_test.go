package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

func valid() Config {
	return Config{
		DataDir: "/data", StateDir: "/state", Streams: []StreamConfig{{Name: OrderStatuses}, {Name: Fills, Mode: ByBlock}},
		Filter: Filter{Coins: []string{"BTC", "xyz:*", "PURR/USDC"}, Users: []string{"0x" + strings.Repeat("aB", 20)},
			Sides: []string{"A"}, MinNotional: "10000.5"},
		Sink: Sink{File: &FileSink{Path: "/out"}},
	}
}

func TestAFileRoundTripsItsConfiguration(t *testing.T) {
	filters := valid()
	filters.Streams = append(filters.Streams, StreamConfig{Name: TwapStatuses, Filter: &Filter{}}, StreamConfig{
		Name: MiscEvents, Filter: &Filter{Types: []string{"Funding"}, Markets: []Market{Hip3}, ExcludeCoins: []string{"#*"}},
	})
	for name, c := range map[string]Config{"sparse": valid(), "complete": valid().WithDefaults(4), "filters": filters} {
		data, err := yaml.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		back, err := Load(path)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, data)
		}
		if !reflect.DeepEqual(back, c) {
			t.Errorf("%s: got %+v; want %+v\n%s", name, back, c, data)
		}
	}
}

func TestDefaultsFillOnlyWhatWasLeftOut(t *testing.T) {
	c := valid().WithDefaults(4)
	if c.Streams[0].Mode != Auto || c.Streams[1].Mode != ByBlock || c.Format != Enveloped || c.Engine.StartAt != End ||
		c.Engine.Workers != 4 || c.Engine.BufferLimit != 32<<20 || c.Engine.ParallelThreshold != 1000 ||
		c.Engine.MaxLineBytes != 64<<20 ||
		c.Sink.File.MaxSize != 1<<30 || c.Sink.File.MaxAge.Duration != time.Hour ||
		c.ShutdownTimeout.Duration != 20*time.Second {
		t.Errorf("defaults: %+v", c)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	if original := valid(); original.Sink.File.MaxSize != 0 || original.Streams[0].Mode != "" {
		t.Error("WithDefaults changed the original")
	}
	once := valid()
	once.Once = true
	if got := once.WithDefaults(1).Engine.StartAt; got != Beginning {
		t.Errorf("a run with Once begins at %s; want Beginning", got)
	}
	once.Engine.StartAt = End
	if got := once.WithDefaults(1).Engine.StartAt; got != End {
		t.Errorf("a setting was overridden by %s", got)
	}
}

func TestMetricsAreNamedAlikeInFlagsAndScrapes(t *testing.T) {
	for _, want := range MetricsDetails() {
		if got, err := ParseMetricsDetail(want.Kebab()); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %s", want.Kebab(), got, err, want)
		}
	}
	for _, name := range []string{"", "All", "everything"} {
		got, err := ParseMetricsDetail(name)
		if err == nil || got != "" {
			t.Errorf("%q is %q, %v; want an error", name, got, err)
			continue
		}
		for _, known := range MetricsDetails() {
			if !strings.Contains(err.Error(), known.Kebab()) {
				t.Errorf("%v does not name %s", err, known.Kebab())
			}
		}
	}
}

func TestEveryInvalidSettingIsNamed(t *testing.T) {
	for field, change := range map[string]func(*Config){
		"dataDir":                  func(c *Config) { c.DataDir = "" },
		"linkDirs[0]":              func(c *Config) { c.LinkDirs = []string{"/tmp/../etc"} },
		"stateDir":                 func(c *Config) { c.StateDir = "" },
		"streams":                  func(c *Config) { c.Streams = nil },
		"streams[1].name":          func(c *Config) { c.Streams[1].Name = "Orders" },
		"streams[0].mode":          func(c *Config) { c.Streams[0].Mode = "Hourly" },
		"filter.coins[0]":          func(c *Config) { c.Filter.Coins = []string{"*"} },
		"filter.coins[1]":          func(c *Config) { c.Filter.Coins = []string{"BTC", ":*"} },
		"filter.coins":             func(c *Config) { c.Filter.Coins = make([]string, MaxFilterValues+1) },
		"filter.statuses[0]":       func(c *Config) { c.Filter.Statuses = []string{""} },
		"filter.users[0]":          func(c *Config) { c.Filter.Users = []string{"0xabc"} },
		"filter.sides[1]":          func(c *Config) { c.Filter.Sides = []string{"A", "a"} },
		"filter.minNotional":       func(c *Config) { c.Filter.MinNotional = "-1" },
		"format":                   func(c *Config) { c.Format = "Json" },
		"sink":                     func(c *Config) { c.Sink.Stdout = &StdoutSink{} },
		"sink.file.path":           func(c *Config) { c.Sink.File.Path = "" },
		"sink.file.maxSize":        func(c *Config) { c.Sink.File.MaxSize = 1 },
		"sink.file.rotate":         func(c *Config) { c.Sink.File.Rotate = "Daily" },
		"sink.file.maxTotalSize":   func(c *Config) { c.Sink.File.MaxTotalSize = 2*c.Sink.File.MaxSize - 1 },
		"sink.file.minFreePercent": func(c *Config) { c.Sink.File.MinFreePercent = new(MaxMinFreePercent + 1) },
		"sink.file.compress":       func(c *Config) { c.Sink.File.Compress = "gzip" },
		"sink.file.maxAge":         func(c *Config) { c.Sink.File.MaxAge.Duration = time.Millisecond },
		"engine.bufferLimit":       func(c *Config) { c.Engine.BufferLimit = 8 << 30 },
		"engine.workers":           func(c *Config) { c.Engine.Workers = -1 },
		"engine.maxLineBytes":      func(c *Config) { c.Engine.MaxLineBytes = 10 },
		"engine.readRate":          func(c *Config) { c.Engine.ReadRate = MinReadRate - 1 },
		"engine.startAt":           func(c *Config) { c.Engine.StartAt = "Middle" },
		"engine.startAtBlock":      func(c *Config) { c.Engine.StartAt = AtBlock },
		"engine.deduplicateBlocks": func(c *Config) { c.Engine.DeduplicateBlocks, c.Streams[0].Mode = true, Line },
		"shutdownTimeout":          func(c *Config) { c.ShutdownTimeout.Duration = -1 },
		"metrics[1]":               func(c *Config) { c.Metrics = []MetricsDetail{AllMetrics, "Everything"} },
		"engine.parallelThreshold": func(c *Config) { c.Engine.ParallelThreshold = -1 },
	} {
		t.Run(field, func(t *testing.T) {
			c := valid().WithDefaults(2)
			change(&c)
			var wrong *FieldError
			if err := c.Validate(); !errors.As(err, &wrong) || wrong.Field != field {
				t.Fatalf("got %v; want an error for %s", err, field)
			}
		})
	}
}

func TestEachFormatIsAcceptedForEachStream(t *testing.T) {
	for _, format := range Formats() {
		c := valid().WithDefaults(2)
		c.Format, c.Streams = format, nil
		for _, stream := range Streams() {
			c.Streams = append(c.Streams, StreamConfig{Name: stream, Mode: Auto})
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", format, err)
		}
	}
}

func TestSizesAndDurationsAreParsed(t *testing.T) {
	for text, want := range map[string]Bytes{`33554432`: 32 << 20, `"32Mi"`: 32 << 20, `"32MiB"`: 32 << 20, `"1G"`: 1e9,
		`"1Gi"`: 1 << 30, `"512"`: 512} {
		var b Bytes
		if err := b.UnmarshalJSON([]byte(text)); err != nil || b != want {
			t.Errorf("%s is %d, %v; want %d", text, b, err, want)
		}
	}
	for _, text := range []string{`"big"`, `"-1"`, `true`, `{}`, `""`} {
		if err := new(Bytes).UnmarshalJSON([]byte(text)); err == nil {
			t.Errorf("%s is accepted as a size", text)
		}
	}
	var d Duration
	if err := d.UnmarshalJSON([]byte(`"90s"`)); err != nil || d.Duration != 90*time.Second {
		t.Errorf("90s is %v, %v", d, err)
	}
	for _, text := range []string{`90`, `"90"`, `"soon"`} {
		if err := new(Duration).UnmarshalJSON([]byte(text)); err == nil {
			t.Errorf("%s is accepted as a duration", text)
		}
	}
}

func TestEveryStreamAndModeCanBeWrittenAsAFlag(t *testing.T) {
	for _, stream := range Streams() {
		for _, mode := range Modes() {
			got, err := ParseStreamFlag(stream.Kebab() + ":" + kebab(string(mode)))
			if err != nil || got.Name != stream || got.Mode != mode {
				t.Errorf("%s:%s is %+v, %v", stream.Kebab(), kebab(string(mode)), got, err)
			}
		}
	}
}

func TestAnOrderThatCannotBeKeptIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		field  string
		change func(*Config)
	}{
		"":                        {"", func(*Config) {}},
		"patience alone":          {"order.patience", func(c *Config) { c.Order.By = "" }},
		"an unknown order":        {"order.by", func(c *Config) { c.Order.By = "Time" }},
		"no patience":             {"order.patience", func(c *Config) { c.Order.Patience.Duration = MinPatience - 1 }},
		"endless patience":        {"order.patience", func(c *Config) { c.Order.Patience.Duration = MaxPatience + 1 }},
		"records without streams": {"order.by", func(c *Config) { c.Format = Raw }},
		"lines without blocks":    {"order.by", func(c *Config) { c.Streams[0].Mode = Line }},
		"two sinks": {"order.by", func(c *Config) {
			c.Sinks = []NamedSink{{Name: "a", Sink: c.Sink}, {Name: "b", Sink: Sink{Stdout: &StdoutSink{}}}}
			c.Sink = Sink{}
			c.Streams = []StreamConfig{{Name: Fills, Mode: Auto, Sink: "a"}, {Name: Trades, Mode: Auto, Sink: "b"}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			config := valid()
			config.Format, config.Order.By = Enveloped, OrderByBlock
			config = config.WithDefaults(2)
			c.change(&config)
			err := config.Validate()
			var wrong *FieldError
			if got := errors.As(err, &wrong); got != (c.field != "") || got && wrong.Field != c.field {
				t.Errorf("got %v, want an error about %q", err, c.field)
			}
		})
	}
}
