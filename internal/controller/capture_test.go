package controller_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// captureVariable names the directory that capture writes to. config/argocd/testdata was chosen from what it wrote.
const captureVariable = "HLPARSER_CAPTURE"

// capture writes the first object with each combination of conditions that the specs lead to into a file, as it is
// stored. They are the test data of tools that read conditions.
func capture(ctx context.Context, config *rest.Config) {
	GinkgoHelper()
	dir := os.Getenv(captureVariable)
	if dir == "" {
		return
	}
	c, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	ctx, cancel := context.WithCancel(ctx)
	DeferCleanup(cancel)
	seen := map[string]bool{}
	go wait.UntilWithContext(ctx, func(ctx context.Context) {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("HyperliquidParserList"))
		watcher, err := c.Watch(ctx, list)
		if err != nil {
			return // a spec has stopped the API server
		}
		defer watcher.Stop()
		for event := range watcher.ResultChan() { // it ends with each change of the CRD
			u, ok := event.Object.(*unstructured.Unstructured)
			if !ok || event.Type == watch.Deleted || seen[combination(u)] {
				continue
			}
			seen[combination(u)] = true
			write(u, filepath.Join(dir, combination(u)+".yaml"))
		}
	}, tick)
}

func write(u *unstructured.Unstructured, path string) {
	defer GinkgoRecover()
	u.SetManagedFields(nil)
	text, err := yaml.Marshal(u.Object)
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(path, text, 0o600)).To(Succeed())
}

// combination names the state of an object, with a hash of all that its conditions are.
func combination(u *unstructured.Unstructured) string {
	state, _, _ := unstructured.NestedString(u.Object, "status", "state")
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	var parts []string
	for _, c := range conditions {
		if m, ok := c.(map[string]any); ok {
			parts = append(parts, fmt.Sprintf("%s %s %s", m["type"], m["status"], m["reason"]))
		}
	}
	seen, _, _ := unstructured.NestedInt64(u.Object, "status", "observedGeneration")
	paused, _, _ := unstructured.NestedBool(u.Object, "spec", "paused")
	action, _, _ := unstructured.NestedString(u.Object, "spec", "growth", "action")
	h := fnv.New32a()
	_, _ = fmt.Fprint(h, strings.Join(parts, ","), seen == u.GetGeneration(), paused, action)
	return fmt.Sprintf("%s-%08x", state, h.Sum32())
}
