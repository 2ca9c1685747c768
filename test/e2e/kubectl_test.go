package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// hlp runs kubectl hlp on the fleet, and returns its outputs and exit code.
func (f *fleet) hlp(ctx context.Context, args ...string) (out, errs string, code int) {
	GinkgoHelper()
	cmd := exec.CommandContext(ctx, env.plugin, append(args, "-n", f.namespace)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+env.kubeconfig)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if failed := new(exec.ExitError); err != nil && !errors.As(err, &failed) {
		Expect(err).NotTo(HaveOccurred(), "kubectl hlp %s", strings.Join(args, " "))
	}
	GinkgoWriter.Printf("$ kubectl hlp %s\n%s%sexit code %d\n", strings.Join(args, " "), &stdout, &stderr,
		cmd.ProcessState.ExitCode())
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

var _ = Describe("kubectl hlp", Label("kubectl"), func() {
	It("shows a fleet and its records, and pauses it", func(ctx SpecContext) {
		if env.plugin == "" {
			Skip("E2E_PLUGIN does not name the program kubectl-hlp")
		}
		f := newFleet(ctx, "plugin", rate)
		f.create(ctx, f.object())
		for account, role := range map[string]string{"reader": "reports-reader", "sampler": "samples-reader"} {
			f.token(ctx, account, "hyperliquid-parser-operator-"+role)
		}
		reader := func(args ...string) (out, errs string, code int) {
			return f.hlp(ctx, append(args, "--service-account=reader")...)
		}
		sampler := func(args ...string) (out, errs string, code int) {
			return f.hlp(ctx, append(args, "--service-account=sampler")...)
		}

		By("top: all is well, with figures from the manager")
		out, errs, code := reader("top", f.name)
		Expect(code).To(BeZero(), out+errs)
		Expect(out).To(And(MatchRegexp(`node-1 +Healthy`), MatchRegexp(`node-2 +Healthy`), ContainSubstring(" MiB (")))
		Expect(out).NotTo(ContainSubstring("no figures"))

		By("tail: records that are in the output")
		out, errs, code = sampler("tail", f.name, "node-1", "--stream=fills", "--count=5")
		Expect(code).To(BeZero(), errs)
		Expect(errs).To(ContainSubstring("5 shown of "))
		lines := strings.Split(strings.TrimSpace(out), "\n")
		Expect(lines).To(HaveLen(5))
		var coin string
		for _, line := range lines {
			var record struct {
				Target, Stream string
				Event          []json.RawMessage
			}
			Expect(json.Unmarshal([]byte(line), &record)).To(Succeed(), line)
			Expect(record.Target+" "+record.Stream).To(Equal("node-1 Fills"), line)
			var fill struct{ Coin string }
			Expect(json.Unmarshal(record.Event[1], &fill)).To(Succeed(), line)
			coin = fill.Coin
		}
		out, errs, code = sampler("tail", f.name, "node-2", "--stream=fills", "--coin="+coin, "--count=2", "--for=30s")
		Expect(code).To(BeZero(), errs)
		Expect(strings.Count(out, `"coin":"`+coin+`"`)).To(Equal(2), out)
		_, errs, code = sampler("tail", f.name, "node-1", "--coin=NO-COIN", "--for=2s")
		Expect(code).To(Equal(4), errs)
		Expect(errs).To(ContainSubstring("of other coins than NO-COIN"))
		_, errs, code = reader("tail", f.name, "node-1")
		Expect(code).To(Equal(1))
		Expect(errs).To(ContainSubstring("may not get hyperliquidparsers/samples"))
		_, _, code = sampler("tail", f.name, "node-1", "--count=0")
		Expect(code).To(Equal(2))

		By("restart: a dry run replaces no pod")
		before := f.pod(ctx, 1).UID
		out, errs, code = f.hlp(ctx, "restart", f.name, "--dry-run=server")
		Expect(code).To(BeZero(), errs)
		Expect(out).To(ContainSubstring("(server dry run)"))
		Expect(f.get(ctx).Annotations).NotTo(HaveKey(v1alpha1.AnnotationRestartedAt))

		By("pause and resume")
		_, errs, code = f.hlp(ctx, "pause", f.name)
		Expect(code).To(BeZero(), errs)
		Expect(f.get(ctx).Spec.Paused).To(BeTrue())
		_, errs, code = f.hlp(ctx, "rollout", "status", f.name, "--timeout=30s")
		Expect(code).To(BeZero(), errs) // nothing is left to do
		Expect(f.pod(ctx, 1).UID).To(Equal(before))
		_, errs, code = f.hlp(ctx, "resume", f.name)
		Expect(code).To(BeZero(), errs)
		Expect(f.get(ctx).Spec.Paused).To(BeFalse())
		f.exact(ctx)
	}, SpecTimeout(10*time.Minute))
})
