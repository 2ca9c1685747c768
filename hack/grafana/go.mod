// The dashboards of config/grafana. It is a separate module, so that none of this reaches the operator's dependencies.
module github.com/hlparser/hyperliquid-parser-operator/hack/grafana

go 1.26.0

require github.com/grafana/grafana-foundation-sdk/go v0.0.22
