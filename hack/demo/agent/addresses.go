package agent

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// addresses hands out addresses of 127.0.0.0/8: a second byte of this agent's
// own, so that two demos on a machine rarely meet, a third for the node, a
// fourth for the pod.
type addresses struct {
	second byte

	mu   sync.Mutex
	last map[int]int // by node
}

// CheckAddresses says whether this system lets pods have addresses of their own.
func CheckAddresses() error {
	if err := free("127.127.127.127", []int32{0}); err != nil {
		return fmt.Errorf("pods need addresses of 127.0.0.0/8, all of which Linux has without asking: %w", err)
	}
	return nil
}

func newAddresses() *addresses {
	return &addresses{second: byte(64 + rand.IntN(128)), last: map[int]int{}}
}

func (a *addresses) node(index int) string { return fmt.Sprintf("127.%d.%d.1", a.second, index+1) }

// pod finds an address on which all the ports are free.
func (a *addresses) pod(node int, ports []int32) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var err error
	for range 253 {
		// An address is not used again soon: nobody takes a new pod for the old.
		a.last[node] = a.last[node]%253 + 1
		ip := fmt.Sprintf("127.%d.%d.%d", a.second, node+1, a.last[node]+1)
		if err = free(ip, ports); err == nil {
			return ip, nil
		}
	}
	return "", fmt.Errorf("no free address for a pod; the last try: %w", err)
}

func free(ip string, ports []int32) error {
	for _, port := range ports {
		l, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(int(port))))
		if err != nil {
			return err
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}
