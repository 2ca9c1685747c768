package controller_test

import (
	"maps"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
)

// good is an object that admission accepts.
const good = `
target: {nodes: {selector: {matchLabels: {role: node}}, dataPath: /home/hluser/hl/data}}
streams: [{name: Fills}]
sink: {stdout: {}}
`

var _ = Describe("admission", func() {
	// create asks for an object with the good spec and the given changes, dry run.
	create := func(ctx SpecContext, name, spec string) error {
		base := map[string]any{}
		Expect(yaml.Unmarshal([]byte(good), &base)).To(Succeed())
		over := map[string]any{}
		Expect(yaml.Unmarshal([]byte(spec), &over)).To(Succeed())
		maps.Copy(base, over)
		maps.DeleteFunc(base, func(_ string, v any) bool { return v == nil })
		obj := &unstructured.Unstructured{Object: map[string]any{"spec": base}}
		obj.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("HyperliquidParser"))
		obj.SetNamespace("default")
		obj.SetName(name)
		return k8s.Create(ctx, obj, client.DryRunAll)
	}
	accepts := func(ctx SpecContext, spec string) { Expect(create(ctx, "good", spec)).To(Succeed()) }
	nodes := func(fields string) string {
		return "target: {nodes: {selector: {matchLabels: {role: node}}, dataPath: /data, " + fields + "}}"
	}

	pods := func(fields string) string {
		return "target: {pods: {selector: {matchLabels: {app: hl-node}}, volume: data, " + fields + "}}"
	}

	DescribeTable("accepts", accepts,
		Entry("the least", ""),
		Entry("file with its defaults", "sink: {file: {path: /var/lib/hlparser-out}}"),
		Entry("output on a claim", "sink: {file: {claimName: records}}"),
		Entry("output in a directory of a claim", "sink: {file: {claimName: records, path: /archive}}"),
		Entry("pods whose claim is the data", pods("")),
		Entry("pods with data and state side by side", pods("subPath: hl/data, stateSubPath: hl/data-state")),
		Entry("pods whose claim is the data, with state in a directory of its own", pods("stateSubPath: .hlparser/mainnet")),
		Entry("pods with their state on a claim of its own", pods("stateClaimName: state")),
		Entry("pods with their state anywhere on a claim of its own",
			pods("subPath: hl, stateClaimName: state, stateSubPath: hl/state")),
		Entry("percentages up to all", `rollout: {maxUnavailable: "100%"}`),
		Entry("a number of targets", "rollout: {maxUnavailable: 3}"),
		Entry("a canary with its defaults", "rollout: {canary: {}}"),
		Entry("a share of canaries that soak for a week",
			`rollout: {canary: {count: "5%", soak: 168h}, revisionHistoryLimit: 0}`),
		Entry("durations as Go prints them", "growth: {pollInterval: 1m0s, stuckAfter: 1h0m0s}"),
		Entry("a long poll interval, which lag follows", "growth: {pollInterval: 10m, stuckAfter: 30m}"),
		Entry("a lag of three polls", "growth: {pollInterval: 5s, lag: 15s}"),
		Entry("streams that may rest", "growth: {sourceStalledAfter: {Fills: 5m, OrderStatuses: 0s, MiscEvents: 24h}}"),
		Entry("fleet-wide from two", `growth: {fleetWideThreshold: 2}`),
		Entry("a year's files", "growth: {retention: 8760h}"),
		Entry("blocks that lines name",
			"{streams: [{name: Fills}, {name: Trades, mode: ByBlock}], engine: {deduplicateBlocks: true}}"),
		Entry("a start at a block", "{streams: [{name: Fills}, {name: Trades, mode: ByBlock}], "+
			"engine: {startAt: Block, startAtBlock: 978995377}}"),
		Entry("one shape a stream",
			"{streams: [{name: OrderStatuses}, {name: Fills}, {name: Trades}, {name: RawBookDiffs}, {name: MiscEvents},"+
				" {name: OracleUpdates}, {name: SystemActions}, {name: TwapStatuses}], format: Normalized}"),
		Entry("rows in envelopes", "{streams: [{name: MiscEvents}, {name: Fills}], format: EnvelopedRows}"),
		Entry("a JetStream stream", "sink: {nats: {url: 'nats://nats:4222', stream: HYPERLIQUID}}"),
		Entry("a cluster of NATS servers, with everything", `sink: {nats: {url: 'tls://a.b:4222,tls://c.d:4222', stream: HL,
  subject: 'hl.{target}.x-{coin}', create: {replicas: 3, maxBytes: 100Gi, maxAge: 72h},
  delivery: ExactlyOnce, recordsPerMessage: 100, credentialsSecretRef: {name: nats-creds},
  tls: {caSecretRef: {name: ca}, certSecretRef: {name: client}, serverName: nats}}}`),
		Entry("the chain's own identity",
			"{streams: [{name: Fills, mode: ByBlock}], sink: {nats: {url: 'nats://nats:4222', stream: HL, identity: Chain}}}"),
		Entry("Kafka", "sink: {kafka: {brokers: ['kafka:9092']}}"),
		Entry("Kafka, with everything", `sink: {kafka: {brokers: ['a:9092', '[2001:db8::1]:9092'],
  topic: 'hl.{stream}.{coin}', key: '{target}/{coin}', delivery: AtLeastOnce, positionsTopic: positions,
  create: {partitions: 12, replicationFactor: 3}, compression: lz4, maxMessageBytes: 8388608,
  tls: {caSecretRef: {name: ca}}, sasl: {secretRef: {name: login}}}}`),
		Entry("sinks by name", `{sink: null,
  streams: [{name: Fills, sink: live}, {name: Trades, sink: archive}, {name: MiscEvents, sink: archive}],
  sinks: [{name: live, kafka: {brokers: ['kafka:9092']}}, {name: archive, file: {path: /var/lib/hlparser-out}}]}`),
		Entry("all of a builder's coins", `filter: {coins: ["xyz:*", "@107", "PURR/USDC"]}`),
		Entry("all spot pairs, outcomes, and either spelling of a side",
			`filter: {coins: ["@*", "#*"], excludeCoins: ["@107", "xyz:*"], sides: [A, Ask, B, Bid]}`),
		Entry("markets", "filter: {markets: [Perp, Spot, Hip3, Outcome]}"),
		Entry("a status to drop, beside a stream without one",
			"{streams: [{name: OrderStatuses}, {name: Fills}], filter: {excludeStatuses: [badAloPxRejected]}}"),
		Entry("a filter of a stream of its own", `{streams: [{name: OrderStatuses}, {name: Fills, filter: {coins: [BTC]}},
  {name: SystemActions, filter: {}}, {name: MiscEvents, filter: {types: [Funding], users: ["0x`+strings.Repeat("1", 40)+
			`"]}}], filter: {coins: [BTC], statuses: [open], minNotional: "10"}}`),
	)

	DescribeTable("refuses, and says what to write instead",
		func(ctx SpecContext, spec, field, message string) {
			err := create(ctx, "bad", spec)
			Expect(err).To(MatchError(And(ContainSubstring(field), ContainSubstring(message))))
			Expect(err.Error()).NotTo(ContainSubstring("no such key"))
			Expect(err.Error()).NotTo(ContainSubstring("rule evaluation error"))
		},
		Entry("no target", "target: {}", "spec.target", "exactly one of the fields in [nodes pods] must be set"),
		Entry("two targets", "target: {nodes: {selector: {matchLabels: {a: b}}, dataPath: /data}, pods: {selector: "+
			"{matchLabels: {a: b}}, volume: data}}", "spec.target", "exactly one of the fields in [nodes pods] must be set"),
		Entry("too little room for two files of the default size",
			"sink: {file: {path: /var/lib/hlparser-out, maxTotalSize: 1Gi}}", "spec.sink.file.maxTotalSize",
			"write at least twice maxSize"),
		Entry("an empty selector of pods", "target: {pods: {selector: {}, volume: data}}", "spec.target.pods.selector",
			"write the label of the Hyperliquid nodes' pods"),
		Entry("pods without a volume", "target: {pods: {selector: {matchLabels: {a: b}}}}", "spec.target.pods.volume",
			"Required value"),
		Entry("a volume that is none", pods("volume: Data"), "spec.target.pods.volume", "write the name of a volume"),
		Entry("an absolute subPath", pods("subPath: /hl"), "spec.target.pods.subPath", "write a path from the claim's root"),
		Entry("a subPath that climbs", pods("subPath: hl/../.."), "spec.target.pods.subPath",
			"write a path from the claim's root"),
		Entry("a stateSubPath that climbs", pods("stateSubPath: .."), "spec.target.pods.stateSubPath",
			"write a path from the claim's root"),
		Entry("state inside the data", pods("subPath: hl/data, stateSubPath: hl/data/state"), "spec.target.pods.stateSubPath",
			"write a directory outside of subPath"),
		Entry("state that is the data", pods("subPath: hl, stateSubPath: hl"), "spec.target.pods.stateSubPath",
			"write a directory outside of subPath"),
		Entry("state among the data where all of the claim is", pods("stateSubPath: node_fills"),
			"spec.target.pods.stateSubPath",
			"write a directory of the parsers' own, whose name begins with hlparser, or set stateClaimName"),
		Entry("state below a directory of the data", pods("stateSubPath: node_fills/hlparser"),
			"spec.target.pods.stateSubPath", "whose name begins with hlparser"),
		Entry("a claim for state that is none", pods("stateClaimName: My_State"), "spec.target.pods.stateClaimName",
			"write the name of a PersistentVolumeClaim"),
		Entry("no stream", "streams: []", "spec.streams", "should have at least 1 items"),
		Entry("a stream twice", "streams: [{name: Fills}, {name: Fills}]", "spec.streams[1]", "Duplicate value"),
		Entry("an unknown stream", "streams: [{name: Fill}]", "spec.streams[0].name",
			`supported values: "OrderStatuses", "Fills"`),
		Entry("an unknown mode", "streams: [{name: Fills, mode: line}]", "spec.streams[0].mode",
			`supported values: "Auto", "Line"`),
		Entry("no sink", "sink: {}", "spec.sink", "exactly one of the fields in [stdout file nats kafka] must be set"),
		Entry("neither sink nor sinks", "sink: null", "spec.sink",
			"set exactly one of sink and sinks: with sinks, each stream names its sink"),
		Entry("both sink and sinks", "{streams: [{name: Fills, sink: a}], sinks: [{name: a, stdout: {}}]}", "spec.sink",
			"set exactly one of sink and sinks"),
		Entry("a stream whose sink there is not",
			"{sink: null, streams: [{name: Fills, sink: b}], sinks: [{name: a, stdout: {}}]}", "spec.streams",
			"set each stream's sink to the name of one of them"),
		Entry("a stream that names no sink",
			"{sink: null, streams: [{name: Fills, sink: a}, {name: Trades}], sinks: [{name: a, stdout: {}}]}", "spec.streams",
			"set each stream's sink to the name of one of them"),
		Entry("a stream that names a sink where there is one", "streams: [{name: Fills, sink: a}]", "spec.streams",
			"without sinks, leave it out"),
		Entry("a sink of no stream",
			"{sink: null, streams: [{name: Fills, sink: a}], sinks: [{name: a, stdout: {}}, {name: b, kafka: {brokers: "+
				"['k:9092']}}]}", "spec.sinks", "a sink has no stream"),
		Entry("two output directories",
			"{sink: null, streams: [{name: Fills, sink: a}, {name: Trades, sink: b}], sinks: [{name: a, file: {path: /a}}, "+
				"{name: b, file: {path: /b}}]}", "spec.sinks", "set file and stdout at most once each"),
		Entry("a sink's name that is none", "{sink: null, streams: [{name: Fills, sink: A}], sinks: [{name: A, stdout: {}}]}",
			"spec.sinks[0].name", "should match"),
		Entry("a named sink that is none", "{sink: null, streams: [{name: Fills, sink: a}], sinks: [{name: a}]}",
			"spec.sinks[0]", "exactly one of the fields in [stdout file nats kafka] must be set"),
		Entry("NATS without its scheme", "sink: {nats: {url: 'nats:4222', stream: HL}}", "spec.sink.nats.url",
			"write a server's address such as nats://nats:4222"),
		Entry("a password in an address", "sink: {nats: {url: 'nats://me:secret@nats:4222', stream: HL}}",
			"spec.sink.nats.url", "no name or password in it"),
		Entry("a stream's name with dots", "sink: {nats: {url: 'nats://nats:4222', stream: a.b}}", "spec.sink.nats.stream",
			"no spaces, dots, stars"),
		Entry("an unknown placeholder", "sink: {nats: {url: 'nats://nats:4222', stream: HL, subject: 'hl.{symbol}'}}",
			"spec.sink.nats.subject", "with {stream}, {coin} or {target}"),
		Entry("a subject for everything", "sink: {nats: {url: 'nats://nats:4222', stream: HL, subject: 'hl.>'}}",
			"spec.sink.nats.subject", "write words between single dots"),
		Entry("packed messages with the chain's identity",
			"{streams: [{name: Fills, mode: ByBlock}], sink: {nats: {url: 'nats://nats:4222', stream: HL, identity: Chain, "+
				"recordsPerMessage: 10}}}", "spec.sink.nats.recordsPerMessage", "leave recordsPerMessage out"),
		Entry("the chain's identity without blocks", "sink: {nats: {url: 'nats://nats:4222', stream: HL, identity: Chain}}",
			"spec.sink", "set the streams' mode to ByBlock"),
		Entry("metrics that there are not", "metrics: [All, Buckets]", "spec.metrics[1]",
			`supported values: "All", "ClassicBuckets", "CreatedSamples"`),
		Entry("metrics twice", "metrics: [All, All]", "spec.metrics[1]", "Duplicate value"),
		Entry("a broker without a port", "sink: {kafka: {brokers: [kafka]}}", "spec.sink.kafka.brokers[0]",
			"write an address with its port"),
		Entry("no broker", "sink: {kafka: {brokers: []}}", "spec.sink.kafka.brokers", "should have at least 1 items"),
		Entry("a topic that is none", "sink: {kafka: {brokers: ['k:9092'], topic: 'a b'}}", "spec.sink.kafka.topic",
			"write letters, digits, dots"),
		Entry("a key without an end", "sink: {kafka: {brokers: ['k:9092'], key: '{coin'}}", "spec.sink.kafka.key",
			"write text with {stream}"),
		Entry("the best that Kafka can", "sink: {kafka: {brokers: ['k:9092'], delivery: Best}}", "spec.sink.kafka.delivery",
			"write ExactlyOnce or AtLeastOnce"),
		Entry("messages too small", "sink: {kafka: {brokers: ['k:9092'], maxMessageBytes: 100}}",
			"spec.sink.kafka.maxMessageBytes", "greater than or equal to 1024"),
		Entry("a Secret that is none", "sink: {kafka: {brokers: ['k:9092'], sasl: {secretRef: {name: ../x}}}}",
			"spec.sink.kafka.sasl.secretRef.name", "write the name of a Secret"),
		Entry("two sinks", "sink: {stdout: {}, file: {path: /out}}", "spec.sink",
			"exactly one of the fields in [stdout file nats kafka] must be set"),
		Entry("an empty selector", "target: {nodes: {selector: {}, dataPath: /data}}", "spec.target.nodes.selector",
			"write the label of the nodes that hold data"),
		Entry("a relative dataPath", "target: {nodes: {selector: {matchLabels: {a: b}}, dataPath: data}}",
			"spec.target.nodes.dataPath", "write an absolute path below /"),
		Entry("the root as dataPath", "target: {nodes: {selector: {matchLabels: {a: b}}, dataPath: /}}",
			"spec.target.nodes.dataPath", "write an absolute path below /"),
		Entry("a dataPath that climbs", "target: {nodes: {selector: {matchLabels: {a: b}}, dataPath: /mnt/../etc}}",
			"spec.target.nodes.dataPath", "without '.', '..' or '//'"),
		Entry("a statePath that climbs", nodes("statePath: /var/lib/.."), "spec.target.nodes.statePath",
			"write an absolute path below /"),
		Entry("a statePath that is the data", nodes("statePath: /data"), "spec.target.nodes.statePath",
			"write a directory other than dataPath"),
		Entry("a relative file.path", "sink: {file: {path: out}}", "spec.sink.file.path", "write an absolute path below /"),
		Entry("files nowhere", "sink: {file: {}}", "spec.sink.file", "write path, a directory of the node, or claimName"),
		Entry("a claim that is none", "sink: {file: {claimName: My Claim}}", "spec.sink.file.claimName",
			"write the name of a PersistentVolumeClaim"),
		Entry("a directory of a claim that climbs", "sink: {file: {claimName: records, path: /a/../b}}",
			"spec.sink.file.path", "write an absolute path below /"),
		Entry("too little in all", "sink: {file: {path: /out, maxSize: 1Gi, maxTotalSize: 2047Mi}}",
			"spec.sink.file.maxTotalSize", "at least twice maxSize"),
		Entry("in all no size", "sink: {file: {path: /out, maxTotalSize: much}}", "spec.sink.file.maxTotalSize",
			"write a size of at least 128Ki"),
		Entry("no percentage", "sink: {file: {path: /out, minFreePercent: 91}}", "spec.sink.file.minFreePercent",
			"less than or equal to 90"),
		Entry("a file too small", "sink: {file: {path: /out, maxSize: 1k}}", "spec.sink.file.maxSize",
			"write a size of at least 64Ki"),
		Entry("an unknown rotation", "sink: {file: {path: /out, rotate: Daily}}", "spec.sink.file.rotate",
			`supported values: "Size", "Hour"`),
		Entry("an unknown compression", "sink: {file: {path: /out, compress: gzip}}", "spec.sink.file.compress",
			`supported values: "zstd"`),
		Entry("a file too old", "sink: {file: {path: /out, maxAge: 48h}}", "spec.sink.file.maxAge",
			"write a duration from 1s to 24h"),
		Entry("a percentage over all", `rollout: {maxUnavailable: "101%"}`, "spec.rollout.maxUnavailable",
			"write a number of targets from 1, or a percentage from 1% to 100%"),
		Entry("a percentage that is none", `growth: {restart: {maxConcurrent: "ten"}}`, "spec.growth.restart.maxConcurrent",
			"write a number of targets from 1"),
		Entry("an order that there is not", "order: {by: Time}", "spec.order.by", `supported values: "Block"`),
		Entry("an order without a kind", "order: {patience: 5s}", "spec.order.by", "Required value"),
		Entry("no patience", "order: {by: Block, patience: 10ms}", "spec.order.patience",
			"write a duration from 100ms to 1h"),
		Entry("patience without a unit", `order: {by: Block, patience: "5"}`, "spec.order.patience",
			"write a duration from 100ms to 1h"),
		Entry("an order of lines without blocks", "order: {by: Block}\nstreams: [{name: Fills, mode: Line}]", "spec.order",
			"leave order out, or set the streams' mode to Auto, Streaming or ByBlock"),
		Entry("an order of records without streams", "order: {by: Block}\nformat: Raw", "spec.order",
			"leave order out, or write format: Enveloped or Normalized"),
		Entry("no canaries", "rollout: {canary: {count: 0}}", "spec.rollout.canary.count",
			"write a number of targets from 1"),
		Entry("a soak too long", "rollout: {canary: {soak: 200h}}", "spec.rollout.canary.soak",
			"write a duration from 1s to 168h"),
		Entry("a soak without a unit", `rollout: {canary: {soak: "60"}}`, "spec.rollout.canary.soak",
			"write a duration from 1s to 168h"),
		Entry("a history below none", "rollout: {revisionHistoryLimit: -1}", "spec.rollout.revisionHistoryLimit",
			"greater than or equal to 0"),
		Entry("none at once", "rollout: {maxUnavailable: 0}", "spec.rollout.maxUnavailable",
			"write a number of targets from 1"),
		Entry("stuckAfter of two polls", "growth: {pollInterval: 5s, stuckAfter: 10s}", "spec.growth.stuckAfter",
			"write at least 3 × pollInterval"),
		Entry("a lag of two polls", "growth: {pollInterval: 5s, lag: 10s}", "spec.growth.lag",
			"write at least 3 × pollInterval"),
		Entry("a lag without a unit", `growth: {lag: "30"}`, "spec.growth.lag", "write a duration from 1s to 24h"),
		Entry("a lag too long", "growth: {lag: 25h}", "spec.growth.lag", "write a duration from 1s to 24h"),
		Entry("a stream that there is not", "growth: {sourceStalledAfter: {Fill: 60s}}", "spec.growth.sourceStalledAfter",
			"write the names of streams"),
		Entry("a rest too short", "growth: {sourceStalledAfter: {Fills: 5s}}", "spec.growth.sourceStalledAfter[Fills]",
			"write a duration from 10s to 24h"),
		Entry("a rest without a unit", `growth: {sourceStalledAfter: {Fills: "60"}}`, "spec.growth.sourceStalledAfter[Fills]",
			"or 0s for no limit"),
		Entry("files that are hardly kept", "growth: {retention: 5m}", "spec.growth.retention",
			"write a duration from 10m to 8760h"),
		Entry("a retention without a unit", `growth: {retention: "24"}`, "spec.growth.retention",
			"write a duration from 10m to 8760h"),
		Entry("a fleet of one", "growth: {fleetWideThreshold: 1}", "spec.growth.fleetWideThreshold",
			"write a number of targets from 2"),
		Entry("a threshold over all", `growth: {fleetWideThreshold: "101%"}`, "spec.growth.fleetWideThreshold",
			"write a number of targets from 2, or a percentage from 1% to 100%"),
		Entry("a duration without a unit", `growth: {stuckAfter: "30"}`, "spec.growth.stuckAfter",
			"write a duration from 1s to 1h"),
		Entry("a poll too often", "growth: {pollInterval: 100ms}", "spec.growth.pollInterval",
			"write a duration from 1s to 10m"),
		Entry("a cooldown too short", "growth: {restart: {cooldown: 1s}}", "spec.growth.restart.cooldown",
			"write a duration from 10s to 1h"),
		Entry("an action that is none", "growth: {action: Reboot}", "spec.growth.action",
			`supported values: "Restart", "Alert"`),
		Entry("a buffer too small", "engine: {bufferLimit: 1Mi}", "spec.engine.bufferLimit", "write a size from 4Mi to 4Gi"),
		Entry("a line too long", "engine: {maxLineBytes: 2Gi}", "spec.engine.maxLineBytes", "write a size from 1Ki to 1Gi"),
		Entry("a rate too low", "engine: {readRate: 1Mi}", "spec.engine.readRate", "write bytes per second from 4Mi to 1Ti"),
		Entry("no workers", "engine: {workers: 0}", "spec.engine.workers", "greater than or equal to 1"),
		Entry("a star in the middle", `filter: {coins: ["B*C"]}`, "spec.filter.coins[0]",
			"write a coin's exact name such as BTC"),
		Entry("an address that is none", `filter: {users: ["0x12"]}`, "spec.filter.users[0]",
			"write an address: 0x and 40 hexadecimal digits"),
		Entry("a star alone", `filter: {excludeCoins: ["*"]}`, "spec.filter.excludeCoins[0]", "@* for spot pairs"),
		Entry("a side that is none", `filter: {sides: [bid]}`, "spec.filter.sides[0]",
			`supported values: "A", "B", "Ask", "Bid"`),
		Entry("statuses of a stream that has none",
			"{streams: [{name: OrderStatuses}, {name: Fills}], filter: {statuses: [open]}}",
			"spec.filter.statuses", "give the stream a filter of its own in streams[].filter, or leave it out"),
		Entry("sides in the filter of a stream that has none", `streams: [{name: MiscEvents, filter: {sides: [A]}}]`,
			"spec.streams[0].filter.sides", "leave sides out of this stream's filter"),
		Entry("a market that is none", `filter: {markets: [perp]}`, "spec.filter.markets[0]",
			`supported values: "Perp", "Spot", "Hip3", "Outcome"`),
		Entry("a notional that is no decimal", `filter: {minNotional: "1e4"}`, "spec.filter.minNotional",
			"write a decimal such as"),
		Entry("a label of ours", "podLabels: {fleet.hlparser.dev/parser: x}", "spec.podLabels", "write another prefix"),
		Entry("an annotation of ours", "podAnnotations: {fleet.hlparser.dev/target: x}", "spec.podAnnotations",
			"write another prefix"),
		Entry("a label that is none", `podLabels: {team: "a b"}`, "spec.podLabels.team", "should match"),
		Entry("root", "runAsUser: 0", "spec.runAsUser", "greater than or equal to 1"),
		Entry("a user that wraps around to root", "runAsUser: 4294967296", "spec.runAsUser",
			"less than or equal to 2147483647"),
		Entry("a group that wraps around to root", "runAsGroup: 4294967296", "spec.runAsGroup",
			"less than or equal to 2147483647"),
		Entry("root's group among others", "supplementalGroups: [20000, 0]", "spec.supplementalGroups[1]",
			"greater than or equal to 1"),
		Entry("an image that is none", "image: 'https://registry.example/hlparser'", "spec.image",
			"write the reference of an image, such as registry.example/hlparser:v1"),
		Entry("blocks that lines do not name", "{streams: [{name: Fills, mode: Line}], engine: {deduplicateBlocks: true}}",
			"spec.engine.deduplicateBlocks", "to Auto, Streaming or ByBlock"),
		Entry("a start at a block of lines that do not name it",
			"{streams: [{name: Trades}, {name: Fills, mode: Line}], engine: {startAt: Block, startAtBlock: 978995377}}",
			"spec.engine.startAt", "write End or Beginning, or set the streams' mode to Auto, Streaming or ByBlock"),
		Entry("a start at no block", "engine: {startAt: Block}", "spec.engine.startAtBlock", "write both"),
		Entry("a block without a start at it", "engine: {startAtBlock: 978995377}", "spec.engine.startAtBlock",
			"write both, or leave startAtBlock out"),
		Entry("a block with another start", "engine: {startAt: Beginning, startAtBlock: 978995377}",
			"spec.engine.startAtBlock", "write both, or leave startAtBlock out"),
		Entry("a start at block 0", "engine: {startAt: Block, startAtBlock: 0}", "spec.engine.startAtBlock",
			"greater than or equal to 1"),
		Entry("an unknown start", "engine: {startAt: Middle}", "spec.engine.startAt",
			`supported values: "End", "Beginning", "Block"`),
		Entry("an unknown format", "format: Json", "spec.format",
			`supported values: "Raw", "Enveloped", "EnvelopedRows", "Normalized"`),
	)

	It("leaves the state of an object of before where it is, and refuses to move it among "+
		"the data", func(ctx SpecContext) {
		f := newFarm(ctx, 0)
		obj := f.besidePods()
		obj.Spec.Target.Pods.StateSubPath = "state"
		Expect(k8s.Create(ctx, obj)).To(Succeed()) // beside the data, which is where any name will do
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Target.Pods.StateSubPath = "hlparser" })
		By("taking all of the claim for data")
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Target.Pods.SubPath = "" })
		now := current(ctx, obj)
		now.Spec.Target.Pods.StateSubPath = "state"
		Expect(k8s.Update(ctx, now)).To(MatchError(ContainSubstring("whose name begins with hlparser")))
	})

	It("refuses another kind of target", func(ctx SpecContext) {
		f := newFarm(ctx, 0)
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		obj.Spec.Target = v1alpha1.Target{Pods: &v1alpha1.PodTarget{Selector: obj.Spec.Target.Nodes.Selector, Volume: "data"}}
		Expect(k8s.Update(ctx, obj)).To(MatchError(ContainSubstring("delete and recreate the object")))
	})

	It("refuses a name that pods could not be named after", func(ctx SpecContext) {
		Expect(create(ctx, strings.Repeat("a", 41), "")).To(
			MatchError(ContainSubstring("pods are named after it: write at most 40")))
		Expect(create(ctx, "main.net", "")).To(MatchError(ContainSubstring("pods are named after it: write at most 40")))
		Expect(create(ctx, strings.Repeat("a", 40), "")).To(Succeed())
	})

	It("fills in the defaults that the design names", func(ctx SpecContext) {
		obj := &v1alpha1.HyperliquidParser{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "defaults"},
			Spec: v1alpha1.HyperliquidParserSpec{
				Target: v1alpha1.Target{Nodes: &v1alpha1.NodeTarget{
					Selector: metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}, DataPath: "/data"}},
				Streams: []v1alpha1.Stream{{Name: "Fills"}},
				Sink:    v1alpha1.Sink{File: &v1alpha1.FileSink{Path: "/out"}},
			},
		}
		Expect(k8s.Create(ctx, obj, client.DryRunAll)).To(Succeed())
		got, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&obj.Spec)
		Expect(err).NotTo(HaveOccurred())
		text, err := yaml.Marshal(got)
		Expect(err).NotTo(HaveOccurred())
		Expect(string(text)).To(MatchYAML(`
target: {nodes: {selector: {matchLabels: {a: b}}, dataPath: /data, statePath: /var/lib/hlparser}}
streams: [{name: Fills}]
format: Enveloped
sink: {file: {path: /out}}
engine: {bufferLimit: 32Mi, parallelThreshold: 1000, workers: 2, startAt: End, maxLineBytes: 64Mi}
growth: {pollInterval: 5s, stuckAfter: 30s, retention: 24h0m0s, action: Restart,
  restart: {cooldown: 5m0s, maxPerHour: 3, maxConcurrent: 10%}, fleetWideThreshold: 30%}
rollout: {maxUnavailable: 10%, revisionHistoryLimit: 5}
terminationGracePeriodSeconds: 30
runAsUser: 10000
runAsGroup: 10000
`))
	})
})

var _ = Describe("what the manager's flags forbid", func() {
	DescribeTable("stalls the object and makes no pod",
		func(ctx SpecContext, edit func(*v1alpha1.HyperliquidParser), reason, message string) {
			f := newFarm(ctx, 1)
			run(runOptions{})
			obj := f.object()
			edit(obj)
			Expect(k8s.Create(ctx, obj)).To(Succeed())
			eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+reason, soon)
			now := current(ctx, obj)
			Expect(conditionMessage(now, v1alpha1.ConditionStalled)).To(ContainSubstring(message))
			Expect(condition(now, v1alpha1.ConditionReady)).To(Equal("False/" + reason))
			Expect(condition(now, v1alpha1.ConditionReconciling)).To(Equal("False/" + reason))
			Consistently(ctx, func() map[string]string { return f.uids(ctx) }).WithTimeout(tick * 5).Should(BeEmpty())
			Eventually(ctx, func() []string { return eventNotes(ctx, obj, reason) }).Should(HaveLen(1))
		},
		Entry("a dataPath elsewhere",
			func(o *v1alpha1.HyperliquidParser) { o.Spec.Target.Nodes.DataPath = "/etc/kubernetes" },
			v1alpha1.ReasonPathNotAllowed,
			"spec.target.nodes.dataPath /etc/kubernetes is outside what the manager allows: write a path at or below "+
				"/home/hluser"),
		Entry("a dataPath that only begins alike",
			func(o *v1alpha1.HyperliquidParser) { o.Spec.Target.Nodes.DataPath = "/home/hluser2/hl" },
			v1alpha1.ReasonPathNotAllowed, "/home/hluser2/hl is outside"),
		Entry("a statePath elsewhere",
			func(o *v1alpha1.HyperliquidParser) { o.Spec.Target.Nodes.StatePath = "/var/lib/kubelet" },
			v1alpha1.ReasonPathNotAllowed, "spec.target.nodes.statePath /var/lib/kubelet"),
		Entry("an output elsewhere", func(o *v1alpha1.HyperliquidParser) {
			o.Spec.Sink = v1alpha1.Sink{File: &v1alpha1.FileSink{Path: "/etc"}}
		}, v1alpha1.ReasonPathNotAllowed, "spec.sink.file.path /etc is outside"),
		Entry("an image elsewhere", func(o *v1alpha1.HyperliquidParser) { o.Spec.Image = "evil.example/miner:1" },
			v1alpha1.ReasonImageNotAllowed,
			"spec.image evil.example/miner:1 is not of an allowed repository: write one of registry.example/hlparser"),
		Entry("a statePath below a root",
			func(o *v1alpha1.HyperliquidParser) { o.Spec.Target.Nodes.StatePath = "/var/lib/hlparser/other/mainnet" },
			v1alpha1.ReasonPathNotAllowed,
			"spec.target.nodes.statePath /var/lib/hlparser/other/mainnet lies below /var/lib/hlparser"),
		Entry("an image below an allowed one",
			func(o *v1alpha1.HyperliquidParser) { o.Spec.Image = "registry.example/hlparser/miner" },
			v1alpha1.ReasonImageNotAllowed, "is not of an allowed repository"),
		Entry("what injectors and AppArmor read, and names that open a node", func(o *v1alpha1.HyperliquidParser) {
			o.Spec.PodAnnotations = map[string]v1alpha1.AnnotationValue{
				"container.apparmor.security.beta.kubernetes.io/hlparser": "unconfined",
				"sidecar.istio.io/proxyImage":                             "evil.example/root:1",
			}
			o.Spec.SELinuxOptions = &corev1.SELinuxOptions{Type: "spc_t"}
			o.Spec.PriorityClassName = "system-node-critical"
		}, v1alpha1.ReasonPodFieldNotAllowed,
			"spec.podAnnotations: container.apparmor.security.beta.kubernetes.io/hlparser is not allowed with this value: "+
				"leave it out, or add its key to the manager's --allowed-pod-annotations"),
		Entry("a label of others", func(o *v1alpha1.HyperliquidParser) {
			o.Spec.PodLabels = map[string]v1alpha1.LabelValue{"role": "db-client"}
		}, v1alpha1.ReasonPodFieldNotAllowed, "spec.podLabels: role is not allowed"),
		Entry("a group of the node", func(o *v1alpha1.HyperliquidParser) { o.Spec.SupplementalGroups = []int64{6} },
			v1alpha1.ReasonPodFieldNotAllowed,
			"spec.supplementalGroups: ids below 1000, such as 6, are the node's own: write another, or add it to the "+
				"manager's --allowed-groups"),
		Entry("a device", func(o *v1alpha1.HyperliquidParser) {
			o.Spec.Resources.Limits = corev1.ResourceList{"smarter-devices/kmsg": resource.MustParse("1")}
		}, v1alpha1.ReasonPodFieldNotAllowed, "spec.resources: smarter-devices/kmsg may be a device of the node"),
		Entry("a selector with an operator that is none", func(o *v1alpha1.HyperliquidParser) {
			o.Spec.Target.Nodes.Selector.MatchExpressions = []metav1.LabelSelectorRequirement{
				{Key: "a", Operator: "Is", Values: []string{"b"}}}
		}, v1alpha1.ReasonSpecInvalid, "is not a valid label selector operator"),
	)

	It("keeps the pods of a fleet whose new spec is forbidden", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		run(runOptions{})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		allReady(ctx, obj)
		before := f.uids(ctx)

		By("breaking the selector")
		good := obj.Spec.Target.Nodes.Selector
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) {
			o.Spec.Target.Nodes.Selector.MatchExpressions = []metav1.LabelSelectorRequirement{
				{Key: "a", Operator: "Is", Values: []string{"b"}}}
		})
		eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonSpecInvalid, soon)
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).WithTimeout(tick * 10).Should(Equal(before))
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Target.Nodes.Selector = good })
		allReady(ctx, obj)

		By("moving the state without saying so")
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Spec.Target.Nodes.StatePath = "/mnt/state" })
		eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonStatePathChanged, soon)
		Expect(conditionMessage(current(ctx, obj), v1alpha1.ConditionStalled)).To(
			ContainSubstring("annotate the object with fleet.hlparser.dev/accept-state-path=/mnt/state"))
		Consistently(ctx, func() map[string]string { return f.uids(ctx) }).WithTimeout(tick * 10).Should(Equal(before))

		By("saying so")
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) {
			metav1.SetMetaDataAnnotation(&o.ObjectMeta, v1alpha1.AnnotationAcceptStatePath, "/mnt/state")
		})
		Eventually(ctx, func() string { return current(ctx, obj).Status.StatePath }).Should(Equal("/mnt/state"))
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Updated }).Should(Equal(int32(2)))
		allReady(ctx, obj)
		Expect(f.uids(ctx)).NotTo(HaveKeyWithValue(f.node(0), before[f.node(0)]))
	})
})

var _ = Describe("names and quotas", func() {
	It("reports a pod of somebody else, and adopts an orphan of ours", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		obj := f.object()
		f.setIdle(0, true)
		stranger := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: podspec.PodName(obj.Name, f.target(0))},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		}
		Expect(k8s.Create(ctx, stranger)).To(Succeed())
		revision, err := podspec.NewRevision(obj, parserImage, "cluster")
		Expect(err).NotTo(HaveOccurred())
		orphan := revision.Pod(client.ObjectKeyFromObject(obj), f.target(1), "")
		Expect(k8s.Create(ctx, orphan)).To(Succeed())
		run(runOptions{})
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonNameTaken, soon)
		Expect(conditionMessage(current(ctx, obj), v1alpha1.ConditionStalled)).To(
			ContainSubstring(stranger.Name + " has the name"))
		Eventually(ctx, func() bool { return metav1.IsControlledBy(f.pod(ctx, obj.Name, 1), current(ctx, obj)) }).Should(
			BeTrue())
		Expect(f.pod(ctx, obj.Name, 0).UID).To(Equal(stranger.UID))
		Expect(metav1.GetControllerOf(f.pod(ctx, obj.Name, 0))).To(BeNil())
	})

	It("says that the API server refuses its pods, and goes on when it no longer does", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		quota := &corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: "none"},
			Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}},
		}
		Expect(k8s.Create(ctx, quota)).To(Succeed())
		quota.Status.Hard = quota.Spec.Hard
		quota.Status.Used = corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}
		Expect(k8s.Status().Update(ctx, quota)).To(Succeed())
		run(runOptions{})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonPodRejected, soon)
		Expect(conditionMessage(current(ctx, obj), v1alpha1.ConditionStalled)).To(ContainSubstring("exceeded quota"))
		Expect(k8s.Delete(ctx, quota)).To(Succeed())
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) {
			o.Spec.Rollout.MaxUnavailable = ptr.To(
				intstr.FromString("50%"))
		})
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(3)))
		allReady(ctx, obj)
	})
})
