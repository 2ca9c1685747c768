package controller

import (
	"encoding/json"
	"net"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// Default ports of clients, for addresses without a port.
const (
	natsPort      = 4222
	websocketPort = 80
	websocketTLS  = 443
	kafkaPort     = 9092
)

// sharedSinks returns sorted names of the sinks of an object that other objects may share, such as each server's
// address. Objects share a sink if they have a name in common. A name has the same meaning in every namespace.
func sharedSinks(obj *v1alpha1.HyperliquidParser) []string {
	var out []string
	for _, sink := range obj.Spec.AllSinks() {
		switch {
		case sink.NATS != nil:
			for server := range strings.SplitSeq(sink.NATS.URL, ",") {
				out = appendServer(out, "nats", natsAddress(server, obj.Namespace))
			}
		case sink.Kafka != nil:
			for _, broker := range sink.Kafka.Brokers {
				out = appendServer(out, "kafka", serverAddress(string(broker), kafkaPort, obj.Namespace))
			}
		case sink.File != nil:
			if name := sharedFiles(obj, sink.File); name != "" {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func appendServer(names []string, kind, address string) []string {
	if address == "" {
		return names
	}
	return append(names, kind+" "+address)
}

// sharedFiles returns the name of files that objects of one namespace may share: those on a claim, or in a directory of
// the nodes that a selector selects. It returns "" if no other object can share them.
func sharedFiles(obj *v1alpha1.HyperliquidParser, file *v1alpha1.FileSink) string {
	var parts []any
	switch nodes := obj.Spec.Target.Nodes; {
	case file.ClaimName != "":
		parts = []any{"claim", obj.Namespace, file.ClaimName}
	case nodes != nil:
		parts = []any{"file", obj.Namespace, path.Clean(string(file.Path)), nodes.Selector}
	default:
		return ""
	}
	name, err := json.Marshal(parts)
	if err != nil {
		return "" // impossible for a selector
	}
	return string(name)
}

// natsAddress returns the address of one server of a NATS URL, without scheme and user, or "" if other pods cannot mean
// the same server by it.
func natsAddress(server, namespace string) string {
	if !strings.Contains(server, "://") {
		server = "nats://" + server
	}
	u, err := url.Parse(strings.TrimSpace(server))
	if err != nil {
		return ""
	}
	port := natsPort
	switch strings.ToLower(u.Scheme) {
	case "ws":
		port = websocketPort
	case "wss":
		port = websocketTLS
	}
	return serverAddress(u.Host, port, namespace)
}

// serverAddress returns a server's address as it is valid in every namespace, or "" if other pods cannot mean the same
// server by it.
func serverAddress(server string, defaultPort int, namespace string) string {
	host, port := server, strconv.Itoa(defaultPort)
	if h, p, err := net.SplitHostPort(server); err == nil {
		host = h
		if p != "" {
			port = p
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return ""
	}
	if host = qualified(strings.Trim(host, "[]"), namespace); host == "" {
		return ""
	}
	return net.JoinHostPort(host, strconv.FormatUint(n, 10))
}

// clusterDomain is the default suffix of the names of Services. In a cluster with another suffix, a Service's short
// name and its full name count as two servers.
const clusterDomain = ".cluster.local"

// qualified returns a host name as it is valid in every namespace, or its IP address. It returns "" for a host that
// means the pod or the node itself. A pod resolves a name of one or two labels in its own namespace first
// (resolv.conf's search list), so such a name is assumed to be there: nats is nats.<namespace>.svc. Other meanings of
// nats.infra are ignored. A name of three or more labels, or with a dot at the end, is the same everywhere.
func qualified(host, namespace string) string {
	if ip, err := netip.ParseAddr(host); err == nil {
		ip = ip.Unmap()
		if ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.Zone() != "" {
			return ""
		}
		return ip.String()
	}
	host, absolute := strings.CutSuffix(strings.ToLower(host), ".")
	labels := strings.Split(host, ".")
	if slices.Contains(labels, "") || labels[len(labels)-1] == "localhost" {
		return ""
	}
	if !absolute && len(labels) < 3 {
		host += "." + namespace + ".svc"
	}
	if service, ok := strings.CutSuffix(host, clusterDomain); ok && strings.HasSuffix(service, ".svc") {
		host = service
	}
	return host
}
