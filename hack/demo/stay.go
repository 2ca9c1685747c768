package main

import (
	"context"
	"fmt"
	"path/filepath"
)

// trickle is the fraction of the demo's traffic that continues with --keep: enough to see, too little to fill a disk.
const trickle = 0.02

// stay keeps the fleet running under light traffic until ctx ends.
func (s *scene) stay(ctx context.Context) error {
	kubeconfig, err := s.adminKubeconfig()
	if err != nil {
		return err
	}
	node := s.names[0]
	ip := s.last.podOf(node).Status.PodIP
	s.screen.print(fmt.Sprintf(`The fleet keeps running under light traffic until Ctrl-C. In another terminal:

  export KUBECONFIG=%s
  kubectl get hlp -o wide
  kubectl get pods -o wide -w
  kubectl describe hlp %s
  %s
  curl -s %s      # the metrics of the parser of %s
  curl -X POST %s      # the parser of %s hangs
  kubectl delete hlp %s

Logs: %s and %s/*/logs
`, kubeconfig, fleetName, s.askOperator(), reportURL(ip, "/metrics"), node, reportURL(ip, hangPath), node, fleetName,
		s.operatorLog(), filepath.Join(s.dir, "nodes")))
	return s.traffic.run(ctx, constant(trickle))
}

// askOperator returns a command that shows what the operator serves.
func (s *scene) askOperator() string {
	if s.story.reports {
		return fmt.Sprintf("kubectl hlp top %s %s      # needs the plugin of `make kubectl-hlp`", fleetName, s.managerFlag)
	}
	return fmt.Sprintf("curl -s %s      # the operator's metrics", s.metrics)
}
