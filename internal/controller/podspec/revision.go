package podspec

import (
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// NewRevision renders the config of the object and names the revision. defaultImage stands for spec.image where that is empty. It
// fails with a *config.FieldError for a setting that admission let pass and the parser would refuse.
func NewRevision(obj *v1alpha1.HyperliquidParser, defaultImage string) (Revision, error) {
	rendered := render(&obj.Spec)
	// The parser defaults and checks what it reads in the same way. The count of CPUs stands for a setting that the schema defaults.
	if err := rendered.WithDefaults(1).Validate(); err != nil {
		return Revision{}, fmt.Errorf("rendering the parsers' config: %w", err)
	}
	text, err := yaml.Marshal(rendered)
	if err != nil {
		return Revision{}, fmt.Errorf("rendering the parsers' config: %w", err)
	}
	r := Revision{
		Image:     cmp.Or(obj.Spec.Image, defaultImage),
		Config:    string(text),
		ConfigMap: obj.Name + "-" + hash("config", string(text)),
	}
	shape, err := json.Marshal(shaping(&obj.Spec))
	if err != nil {
		return Revision{}, fmt.Errorf("hashing the fields that shape pods: %w", err)
	}
	r.Hash = hash("revision", string(shape), r.Image, r.Config)
	return r, nil
}

// shaping returns the spec without what shapes no pod, and without what the image and the config already hold. So a field that is
// added to the spec replaces pods when it is set, unless somebody decides here that it does not.
func shaping(spec *v1alpha1.HyperliquidParserSpec) v1alpha1.HyperliquidParserSpec {
	out := *spec.DeepCopy()
	out.Growth = v1alpha1.Growth{}
	out.Rollout = v1alpha1.Rollout{}
	out.Paused = false
	if out.Target.Nodes != nil {
		// Which nodes are selected says nothing of their pods.
		out.Target.Nodes.Selector.MatchLabels = nil
		out.Target.Nodes.Selector.MatchExpressions = nil
	}
	out.Image = ""
	out.Streams = nil
	out.Filter = v1alpha1.Filter{}
	out.Format = ""
	out.Engine = v1alpha1.Engine{}
	if out.Sink.File != nil {
		out.Sink.File.MaxSize, out.Sink.File.MaxAge = nil, nil
		out.Sink.File.Rotate, out.Sink.File.Compress = "", ""
	}
	return out
}

func render(spec *v1alpha1.HyperliquidParserSpec) config.Config {
	c := config.Config{
		DataDir:  dataDir,
		StateDir: stateDir,
		Format:   config.Format(spec.Format),
		Filter: config.Filter{
			Coins:           stringsOf(spec.Filter.Coins),
			Users:           stringsOf(spec.Filter.Users),
			Statuses:        stringsOf(spec.Filter.Statuses),
			ExcludeStatuses: stringsOf(spec.Filter.ExcludeStatuses),
			Sides:           stringsOf(spec.Filter.Sides),
			MinNotional:     spec.Filter.MinNotional,
		},
		Engine: config.Engine{StartAt: config.StartAt(spec.Engine.StartAt), DeduplicateBlocks: spec.Engine.DeduplicateBlocks, Markers: spec.Engine.Markers},
		// Well before the kubelet kills it the parser gives a sink up that does not answer, and commits what it did acknowledge.
		ShutdownTimeout: config.Duration{Duration: time.Duration(ptr.Deref(spec.TerminationGracePeriodSeconds, defaultGrace)) * time.Second * 2 / 3},
	}
	for _, s := range spec.Streams {
		c.Streams = append(c.Streams, config.StreamConfig{Name: config.Stream(s.Name), Mode: config.Mode(s.Mode)})
	}
	if spec.Sink.Stdout != nil {
		c.Sink.Stdout = &config.StdoutSink{}
	}
	if file := spec.Sink.File; file != nil {
		c.Sink.File = &config.FileSink{Path: outDir, Rotate: config.Rotation(file.Rotate), Compress: config.Compression(file.Compress)}
		if file.MaxSize != nil {
			c.Sink.File.MaxSize = config.Bytes(file.MaxSize.Value())
		}
		if file.MaxAge != nil {
			c.Sink.File.MaxAge.Duration = file.MaxAge.Duration
		}
	}
	e := spec.Engine
	if e.BufferLimit != nil {
		c.Engine.BufferLimit = config.Bytes(e.BufferLimit.Value())
	}
	if e.ParallelThreshold != nil {
		c.Engine.ParallelThreshold = int(*e.ParallelThreshold)
	}
	if e.Workers != nil {
		c.Engine.Workers = int(*e.Workers)
	}
	if e.MaxLineBytes != nil {
		c.Engine.MaxLineBytes = config.Bytes(e.MaxLineBytes.Value())
	}
	if e.ReadRate != nil {
		c.Engine.ReadRate = config.Bytes(e.ReadRate.Value())
	}
	return c
}

func stringsOf[T ~string](in []T) []string {
	if len(in) == 0 {
		return nil // an empty list is left out of the config
	}
	out := make([]string, 0, len(in))
	for _, v := range in {
		out = append(out, string(v))
	}
	return out
}

// hash returns 10 characters that name the parts: 50 bits, so that even a million names seldom hold a pair that is alike.
func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		// The length goes first: ("ab", "c") and ("a", "bc") are not alike.
		_, _ = fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").EncodeToString(h.Sum(nil))[:10]
}
