package v1alpha1_test

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// A client decodes a manifest with a scheme that knows the API.
func Example() {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		panic(err)
	}
	manifest := []byte(`
apiVersion: fleet.hlparser.dev/v1alpha1
kind: HyperliquidParser
metadata: {name: mainnet, namespace: hyperliquid}
spec:
  target:
    nodes:
      selector: {matchLabels: {hyperliquid.xyz/role: node}}
      dataPath: /home/hluser/hl/data
  streams: [{name: OrderStatuses}, {name: Fills, mode: ByBlock}]
  sink: {stdout: {}}
`)
	obj, _, err := serializer.NewCodecFactory(scheme).UniversalDeserializer().Decode(manifest, nil, nil)
	if err != nil {
		panic(err)
	}
	parser := obj.(*v1alpha1.HyperliquidParser)
	fmt.Println(parser.Name, "reads", parser.Spec.Target.Nodes.DataPath)
	// Output: mainnet reads /home/hluser/hl/data
}

// The API server sets the defaults of an object that it admits. SetDefaults does so without a cluster.
func ExampleSetDefaults() {
	obj := &v1alpha1.HyperliquidParser{Spec: v1alpha1.HyperliquidParserSpec{
		Target: v1alpha1.Target{Nodes: &v1alpha1.NodeTarget{
			Selector: metav1.LabelSelector{MatchLabels: map[string]string{"hyperliquid.xyz/role": "node"}},
			DataPath: "/home/hluser/hl/data",
		}},
		Streams: []v1alpha1.Stream{{Name: v1alpha1.StreamFills}},
		Sink:    v1alpha1.Sink{Kafka: &v1alpha1.KafkaSink{Brokers: []v1alpha1.Broker{"kafka:9092"}}},
	}}
	v1alpha1.SetDefaults(obj)
	sink, err := yaml.Marshal(obj.Spec.Sink.Kafka)
	if err != nil {
		panic(err)
	}
	fmt.Printf("format %s, mode %s, user %d\n%s", obj.Spec.Format, obj.Spec.Streams[0].Mode, *obj.Spec.RunAsUser, sink)
	// Output:
	// format Enveloped, mode Auto, user 10000
	// brokers:
	// - kafka:9092
	// compression: zstd
	// delivery: ExactlyOnce
	// key: '{coin}'
	// maxMessageBytes: 1048576
	// positionsTopic: hlparser-positions
	// topic: hl.{stream}
}

// The conditions of an object say whether its fleet delivers.
func ExampleHyperliquidParserStatus() {
	status := v1alpha1.HyperliquidParserStatus{Conditions: []metav1.Condition{{
		Type: v1alpha1.ConditionDelivering, Status: metav1.ConditionFalse, Reason: "SinkDown",
		Message: "node-0: the sink of Fills has acknowledged nothing for 31s, 12 MiB waiting",
	}}}
	if meta.IsStatusConditionFalse(status.Conditions, v1alpha1.ConditionDelivering) {
		fmt.Println(meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionDelivering).Reason)
	}
	// Output: SinkDown
}
