package agent

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// addresses allocates addresses of 127.0.0.0/8. The second byte is random for each agent, so that two demos on a
// machine rarely collide. The third byte is the node's, the fourth the pod's.
type addresses struct {
	second byte

	mu   sync.Mutex
	last map[int]int // by node
}

// CheckAddresses returns an error if pods cannot have their own addresses on this system.
func CheckAddresses() error {
	if err := free("127.127.127.127", []int32{0}); err != nil {
		return fmt.Errorf("pods need addresses of 127.0.0.0/8, which only Linux provides by default: %w", err)
	}
	return nil
}

func newAddresses() *addresses {
	return &addresses{second: byte(64 + rand.IntN(128)), last: map[int]int{}}
}

func (a *addresses) node(index int) string { return fmt.Sprintf("127.%d.%d.1", a.second, index+1) }

// pod returns an address on which all the ports are free.
func (a *addresses) pod(node int, ports []int32) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var err error
	for range 253 {
		// Addresses are not reused soon, so that no client mistakes a new pod for the old one.
		a.last[node] = a.last[node]%253 + 1
		ip := fmt.Sprintf("127.%d.%d.%d", a.second, node+1, a.last[node]+1)
		if err = free(ip, ports); err == nil {
			return ip, nil
		}
	}
	return "", fmt.Errorf("finding a free address for a pod: %w", err)
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
