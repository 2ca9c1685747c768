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

// Ports that clients take where an address names none.
const (
	natsPort      = 4222
	websocketPort = 80
	websocketTLS  = 443
	kafkaPort     = 9092
)

// sharedSinks names the sinks of an object that others may have too: each server by its address, sorted. Objects share a sink when they
// have one name in common. A name means the same thing in every namespace.
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

// sharedFiles names files that objects of one namespace may share: the same claim's, or the same directory's on the same nodes. "" when
// nobody else can have them.
func sharedFiles(obj *v1alpha1.HyperliquidParser, file *v1alpha1.FileSink) string {
	var what []any
	switch nodes := obj.Spec.Target.Nodes; {
	case file.ClaimName != "":
		what = []any{"claim", obj.Namespace, file.ClaimName}
	case nodes != nil:
		what = []any{"file", obj.Namespace, path.Clean(string(file.Path)), nodes.Selector}
	default:
		return ""
	}
	name, err := json.Marshal(what)
	if err != nil {
		return "" // no selector is like that
	}
	return string(name)
}

// natsAddress is the address of one server of a NATS URL, whatever its scheme and user; "" when it has none that others can mean.
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

// serverAddress is a server's address as every namespace would have to write it; "" when it has none that another pod can mean.
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

// clusterDomain ends the names of Services where a cluster's administrator has not chosen another. With another, a Service's short name and
// its full one are taken for two servers.
const clusterDomain = ".cluster.local"

// qualified returns a host's name as it is meant in every namespace, or its IP address; "" for one that each pod, or each node, takes for
// itself. A pod looks for a name of one or two labels in its own namespace first (resolv.conf's search list), so that such a name belongs
// there: nats is nats.<namespace>.svc, and what else nats.infra may mean is left alone. One of three or more, and one that ends in a
// dot, is the same everywhere.
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
