package real

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
)

// spellings are values as people write them, and as the API server, Argo CD and its ways to compare may read them
// otherwise: specs of HyperliquidParsers that no node matches, so that no parser runs. Each is added to what base has.
func spellings() []byte {
	const base = `
  target: {nodes: {selector: {matchLabels: {hyperliquid.xyz/network: none}}, dataPath: /home/hluser/hl/data}}`
	const streams, sink = `
  streams: [{name: Fills}]`, `
  sink: {file: {path: /var/lib/hlparser-out}}`
	specs := map[string]string{
		"durations": base + streams + sink + `
  growth: {pollInterval: 5000ms, stuckAfter: 1.5m, restart: {cooldown: 300s}}
  rollout: {canary: {soak: 1h0m0s}}`,
		"quantities": base + streams + `
  sink: {file: {path: /var/lib/hlparser-out, maxSize: 1024Mi}}
  resources: {requests: {cpu: "0.5", memory: 1024Mi}, limits: {cpu: 1, memory: 2147483648}}`,
		"counts": base + streams + sink + `
  growth: {restart: {maxConcurrent: 1}}
  rollout: {maxUnavailable: 25%, canary: {count: "10%"}}`,
		"lists": base + sink + `
  streams: [{name: Trades}, {name: OrderStatuses}, {name: Fills}]
  filter: {coins: [SOL, BTC, ETH]}`,
		"empty": base + streams + sink + `
  engine: {}
  growth: {restart: {}}
  rollout: {canary: {}}
  podLabels: {}
  podAnnotations: {}`,
		"nulls": base + streams + sink + `
  engine: null
  rollout: null`,
		"defaults": base + sink + `
  streams: [{name: Fills, mode: Auto}]
  growth: {fleetWideThreshold: 30%, restart: {cooldown: 5m, maxPerHour: 3, maxConcurrent: 10%}}
  rollout: {maxUnavailable: 10%, revisionHistoryLimit: 5}`,
		"unpaused": base + streams + sink + `
  paused: false`,
	}
	var out bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(specs)) {
		fmt.Fprintf(&out, "---\napiVersion: fleet.hlparser.dev/v1alpha1\nkind: HyperliquidParser\n"+
			"metadata: {name: %s}\nspec:%s\n", "spelling-"+name, specs[name])
	}
	return out.Bytes()
}
