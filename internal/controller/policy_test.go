package controller_test

import (
	"fmt"
	"maps"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

var _ = Describe("the admission policy", func() {
	type edit = func(*v1alpha1.HyperliquidParser)
	try := func(ctx SpecContext, change edit) error {
		obj := around("paused")
		change(obj)
		return k8s.Create(ctx, obj, client.DryRunAll)
	}
	dataPath := func(path v1alpha1.HostPath) edit {
		return func(o *v1alpha1.HyperliquidParser) { o.Spec.Target.Nodes.DataPath = path }
	}
	anything := func(*v1alpha1.HyperliquidParser) {}

	BeforeEach(func(ctx SpecContext) {
		const dir = "../../config/admission-policy/"
		system := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "hyperliquid-parser-operator-system"}}
		Expect(client.IgnoreAlreadyExists(k8s.Create(ctx, system))).To(Succeed())
		bounds, policy, binding := &corev1.ConfigMap{}, &admissionv1.ValidatingAdmissionPolicy{},
			&admissionv1.ValidatingAdmissionPolicyBinding{}
		readYAML(dir+"bounds.yaml", bounds)
		readYAML(dir+"policy.yaml", policy)
		readYAML(dir+"binding.yaml", binding)
		bad := dataPath("/etc")
		// The API server notices that policies come and go after a moment. Cleanups run last to first.
		DeferCleanup(func(ctx SpecContext) { Eventually(ctx, func() error { return try(ctx, bad) }).Should(Succeed()) })
		maps.Copy(bounds.Data, policyData(testBounds))
		for _, o := range []client.Object{bounds, policy, binding} {
			Expect(k8s.Create(ctx, o)).To(Succeed())
			DeferCleanup(func(ctx SpecContext) { Expect(k8s.Delete(ctx, o)).To(Succeed()) })
		}
		Eventually(ctx, func() error { return try(ctx, bad) }).ShouldNot(Succeed())
		Eventually(ctx, func() error { return try(ctx, anything) }).Should(Succeed(), "the bounds are known too")
	})

	It("refuses what the manager would hold back, and nothing else", func(ctx SpecContext) {
		for name, good := range allowedFields {
			Expect(try(ctx, func(o *v1alpha1.HyperliquidParser) { good(&o.Spec) })).To(Succeed(), name)
		}
		for name, bad := range refusedFields {
			Expect(try(ctx, func(o *v1alpha1.HyperliquidParser) { bad(&o.Spec) })).NotTo(Succeed(), name)
		}
		for path, b := range fieldBounds() {
			for i, bad := range b.refused {
				err := try(ctx, func(o *v1alpha1.HyperliquidParser) { bad(&o.Spec) })
				Expect(err).To(HaveOccurred(), "spec.%s, value %d", path, i)
				Expect(err.Error()).NotTo(Or(ContainSubstring("failed expression"), ContainSubstring("resulted in error")),
					"spec.%s, value %d", path, i)
			}
		}
	})

	It("reads images as the manager does", func(ctx SpecContext) {
		for reference, allowed := range imageReferences {
			err := try(ctx, func(o *v1alpha1.HyperliquidParser) { o.Spec.Image = reference })
			if allowed {
				Expect(err).NotTo(HaveOccurred(), "%q", reference)
				continue
			}
			Expect(err).To(HaveOccurred(), "%q", reference)
			Expect(err.Error()).NotTo(Or(ContainSubstring("failed expression"), ContainSubstring("resulted in error")), "%q",
				reference)
		}
		By("doing so without the schema, which knows the grammar too")
		bounds := &corev1.ConfigMap{}
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: "hyperliquid-parser-operator-system",
			Name: "hyperliquidparser-bounds"}, bounds)).To(Succeed())
		bounds.Data["allowed-images"] = "hlparser/, x:v1, a__b.c/, , registry.example:5000/,index.docker.io/,localhost/"
		Expect(k8s.Update(ctx, bounds)).To(Succeed())
		Eventually(ctx, func() error {
			return try(ctx, func(o *v1alpha1.HyperliquidParser) { o.Spec.Image = "registry.example:5000/x/y" })
		}).Should(Succeed())
		for reference, allowed := range map[string]bool{
			"hlparser/miner": true, "docker.io/a/b": true, "x": true, // all of docker.io
			"localhost/a": true, "localhost:1/a": false, "registry.example/a": false, "a__b.c/a": false,
		} {
			err := try(ctx, func(o *v1alpha1.HyperliquidParser) { o.Spec.Image = reference })
			Expect(err == nil).To(Equal(allowed), "%q: %v", reference, err)
		}
	})

	Describe("about Secrets", func() {
		// as is a client of a user who may write HyperliquidParsers, and get the named Secrets.
		as := func(ctx SpecContext, f *farm, user string, secrets ...string) client.Client {
			GinkgoHelper()
			rules := []rbacv1.PolicyRule{{APIGroups: []string{v1alpha1.Group}, Resources: []string{"hyperliquidparsers"},
				Verbs: []string{"*"}}}
			if len(secrets) > 0 {
				rule := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}}
				if secrets[0] != "*" {
					rule.ResourceNames = secrets
				}
				rules = append(rules, rule)
			}
			Expect(k8s.Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: user},
				Rules: rules})).To(Succeed())
			Expect(k8s.Create(ctx, &rbacv1.RoleBinding{
				ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: user},
				Subjects:   []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: user}},
				RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: user},
			})).To(Succeed())
			config := rest.CopyConfig(adminREST)
			config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:authenticated"}}
			c, err := client.New(config, client.Options{Scheme: scheme})
			Expect(err).NotTo(HaveOccurred())
			// The authorizer learns of roles after a moment.
			Eventually(ctx, func() error {
				return c.List(ctx, &v1alpha1.HyperliquidParserList{}, client.InNamespace(f.namespace))
			}).Should(Succeed())
			return c
		}
		ref := func(name string) v1alpha1.SecretRef { return v1alpha1.SecretRef{Name: name} }
		tls := func(name string) *v1alpha1.TLS { return &v1alpha1.TLS{CASecretRef: ptr.To(ref(name))} }
		nats := func() *v1alpha1.NATSSink { return &v1alpha1.NATSSink{URL: "nats://relay:4222", Stream: "HL"} }
		kafka := func() *v1alpha1.KafkaSink { return &v1alpha1.KafkaSink{Brokers: []v1alpha1.Broker{"relay:9092"}} }
		named := func(sink v1alpha1.NamedSink) edit {
			return func(o *v1alpha1.HyperliquidParser) {
				sink.Name = "a"
				o.Spec.Sink, o.Spec.Sinks = v1alpha1.Sink{}, []v1alpha1.NamedSink{sink}
				for i := range o.Spec.Streams {
					o.Spec.Streams[i].Sink = "a"
				}
			}
		}
		creds := func(name string) *v1alpha1.NATSSink {
			n := nats()
			n.CredentialsSecretRef = &v1alpha1.CredentialsSecretRef{SecretRef: ref(name)}
			return n
		}
		// ways to name a Secret: one for each reference of the spec.
		ways := map[string]func(secret string) edit{
			"NATS credentials": func(s string) edit {
				return func(o *v1alpha1.HyperliquidParser) { o.Spec.Sink = v1alpha1.Sink{NATS: creds(s)} }
			},
			"NATS authorities": func(s string) edit {
				return func(o *v1alpha1.HyperliquidParser) {
					o.Spec.Sink = v1alpha1.Sink{NATS: nats()}
					o.Spec.Sink.NATS.TLS = tls(s)
				}
			},
			"a NATS certificate": func(s string) edit {
				n := nats()
				n.TLS = &v1alpha1.TLS{CertSecretRef: ptr.To(ref(s))}
				return named(v1alpha1.NamedSink{NATS: n})
			},
			"a Kafka login": func(s string) edit {
				k := kafka()
				k.SASL = &v1alpha1.KafkaSASL{SecretRef: ref(s)}
				return named(v1alpha1.NamedSink{Kafka: k})
			},
			"Kafka authorities": func(s string) edit {
				k := kafka()
				k.TLS = tls(s)
				return named(v1alpha1.NamedSink{Kafka: k})
			},
			"a Kafka certificate": func(s string) edit {
				return func(o *v1alpha1.HyperliquidParser) {
					k := kafka()
					k.TLS = &v1alpha1.TLS{CertSecretRef: ptr.To(ref(s))}
					o.Spec.Sink = v1alpha1.Sink{Kafka: k}
				}
			},
			"a pull secret": func(s string) edit {
				return func(o *v1alpha1.HyperliquidParser) {
					o.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: s}}
				}
			},
		}
		object := func(f *farm, change edit) *v1alpha1.HyperliquidParser {
			obj := around("paused")
			obj.Namespace = f.namespace
			change(obj)
			return obj
		}
		refusal := ": you may not get each of them"

		It("lets only those name one who may get it", func(ctx SpecContext) {
			f := newFarm(ctx, 0)
			outsider, insider, reader := as(ctx, f, "outsider"), as(ctx, f, "insider", "own", "other"), as(ctx, f, "reader", "*")
			Expect(outsider.Create(ctx, object(f, anything), client.DryRunAll)).To(Succeed())
			Expect(ways).To(HaveLen(len(secretFields())), "the ways are those of fieldBounds, for sink and sinks alike")
			for name, way := range ways {
				Expect(outsider.Create(ctx, object(f, way("own")), client.DryRunAll)).To(
					MatchError(ContainSubstring("spec names the Secrets own"+refusal)), name)
				Expect(insider.Create(ctx, object(f, way("own")), client.DryRunAll)).To(Succeed(), name)
				Expect(insider.Create(ctx, object(f, way("foreign")), client.DryRunAll)).To(MatchError(ContainSubstring(refusal)),
					name)
				Expect(reader.Create(ctx, object(f, way("foreign")), client.DryRunAll)).To(Succeed(), name)
			}
			both := object(f, ways["a pull secret"]("own"))
			both.Spec.Sink = v1alpha1.Sink{NATS: creds("foreign")}
			Expect(insider.Create(ctx, both, client.DryRunAll)).To(MatchError(ContainSubstring(refusal)))
		})

		It("asks about nothing that was named before", func(ctx SpecContext) {
			f := newFarm(ctx, 0)
			admin, controller := as(ctx, f, "admin", "*"), as(ctx, f, "gitops")
			Expect(admin.Create(ctx, object(f, ways["NATS credentials"]("theirs")))).To(Succeed())
			now := current(ctx, object(f, anything))
			now.Spec.Sink.NATS.URL = "nats://elsewhere:4222"
			now.Spec.Filter.Coins = []v1alpha1.Coin{"BTC"}
			Expect(controller.Update(ctx, now)).To(Succeed())
			By("moving the name to another field")
			now.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "theirs"}}
			Expect(controller.Update(ctx, now)).To(Succeed())
			By("naming another")
			now.Spec.Sink.NATS.TLS = tls("theirs2")
			Expect(controller.Update(ctx, now)).To(MatchError(ContainSubstring("spec names the Secrets theirs2" + refusal)))
			By("naming none, and one again")
			now = current(ctx, now)
			now.Spec.Sink, now.Spec.ImagePullSecrets = v1alpha1.Sink{Stdout: &v1alpha1.StdoutSink{}}, nil
			Expect(controller.Update(ctx, now)).To(Succeed())
			now.Spec.Sink = v1alpha1.Sink{NATS: creds("theirs")}
			Expect(controller.Update(ctx, now)).To(MatchError(ContainSubstring(refusal)))
		})

		It("asks about each of as many as a spec may name", func(ctx SpecContext) {
			f := newFarm(ctx, 0)
			names := func(n int) (out []string) {
				for i := range n {
					out = append(out, fmt.Sprintf("secret-%d", i))
				}
				return out
			}
			all := append(names(15), "seldom")
			insider, reader := as(ctx, f, "insider", all...), as(ctx, f, "reader", "*")
			pulling := func(names []string) *v1alpha1.HyperliquidParser {
				return object(f, func(o *v1alpha1.HyperliquidParser) {
					for _, name := range names {
						o.Spec.ImagePullSecrets = append(o.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
					}
				})
			}
			Expect(insider.Create(ctx, pulling(all), client.DryRunAll)).To(Succeed())
			for i := range all {
				asked := slices.Clone(all)
				asked[i] = "foreign"
				Expect(insider.Create(ctx, pulling(asked), client.DryRunAll)).To(MatchError(ContainSubstring(refusal)), "at %d", i)
			}
			By("naming more than can be asked about at once")
			many := pulling(names(16))
			many.Spec.Sink = v1alpha1.Sink{NATS: creds("seldom")}
			Expect(insider.Create(ctx, many, client.DryRunAll)).To(MatchError(ContainSubstring("write at most 16 at once")))
			Expect(reader.Create(ctx, many, client.DryRunAll)).To(Succeed())
			By("naming the most that a spec can")
			most := pulling(names(16))
			most.Spec.Sink, most.Spec.Streams = v1alpha1.Sink{}, nil
			for i, stream := range []v1alpha1.StreamName{"OrderStatuses", "Fills", "Trades", "RawBookDiffs", "MiscEvents",
				"OracleUpdates", "SystemActions", "TwapStatuses"} {
				sink := v1alpha1.SinkName(fmt.Sprintf("s%d", i))
				most.Spec.Streams = append(most.Spec.Streams, v1alpha1.Stream{Name: stream, Sink: sink})
				k := kafka()
				k.SASL = &v1alpha1.KafkaSASL{SecretRef: ref(fmt.Sprintf("login-%d", i))}
				k.TLS = tls(fmt.Sprintf("ca-%d", i))
				k.TLS.CertSecretRef = ptr.To(ref(fmt.Sprintf("cert-%d", i)))
				most.Spec.Sinks = append(most.Spec.Sinks, v1alpha1.NamedSink{Name: sink, Kafka: k})
			}
			Expect(reader.Create(ctx, most, client.DryRunAll)).To(Succeed())
			Expect(insider.Create(ctx, most, client.DryRunAll)).To(MatchError(ContainSubstring("write at most 16 at once")))
			By("naming few by many fields")
			for i := range most.Spec.Sinks {
				k := most.Spec.Sinks[i].Kafka
				k.SASL.SecretRef, k.TLS.CASecretRef, k.TLS.CertSecretRef = ref("secret-1"), ptr.To(ref("secret-2")),
					ptr.To(ref("secret-3"))
			}
			most.Spec.ImagePullSecrets = nil
			Expect(insider.Create(ctx, most, client.DryRunAll)).To(Succeed())
		})
	})

	It("lets objects go that were made under wider bounds", func(ctx SpecContext) {
		f := newFarm(ctx, 0)
		obj := f.object()
		obj.Finalizers = []string{"example.com/wait"}
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		bounds := &corev1.ConfigMap{}
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: "hyperliquid-parser-operator-system",
			Name: "hyperliquidparser-bounds"}, bounds)).To(Succeed())
		bounds.Data["allowed-data-paths"] = "/elsewhere"
		Expect(k8s.Update(ctx, bounds)).To(Succeed())
		Eventually(ctx, func() error { return try(ctx, anything) }).Should(
			MatchError(ContainSubstring("at or below /elsewhere")))
		now := current(ctx, obj)
		now.Spec.Target.Nodes.DataPath = "/home/hluser/other"
		Expect(k8s.Update(ctx, now)).To(MatchError(ContainSubstring("at or below /elsewhere")))
		change(ctx, obj, func(o *v1alpha1.HyperliquidParser) { o.Finalizers = nil })
	})

	It("fails closed without its bounds", func(ctx SpecContext) {
		bounds := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "hyperliquid-parser-operator-system",
			Name: "hyperliquidparser-bounds"}}
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(bounds), bounds)).To(Succeed())
		bounds.Data = nil
		Expect(k8s.Update(ctx, bounds)).To(Succeed())
		Eventually(ctx, func() error { return try(ctx, anything) }).ShouldNot(Succeed())
	})
})
