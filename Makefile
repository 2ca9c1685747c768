# The image that docker-build makes and deploy installs.
IMG ?= hyperliquid-parser-operator:dev
# What deploy installs: config/default, config/namespaced, or another directory below config.
CONFIG ?= config/default
# How many managers deploy asks for; empty: as many as there are, and at first as many as config/manager says.
REPLICAS ?=
# The manager's Deployment, for its number.
DEPLOYMENT ?= --namespace=hyperliquid-parser-operator-system deployment/hyperliquid-parser-operator-controller-manager
ARCH ?= $(shell go env GOARCH)
CONTAINER_TOOL ?= docker
KUBECTL ?= kubectl
# More for go test, e.g. TESTFLAGS='-run TestPlan -v'; what to test, e.g. PKG=./internal/parser/...
TESTFLAGS ?=
PKG ?= ./...
# How long make soak lasts, and how many random sequences its models try after that.
SOAK ?= 10m
SOAK_CHECKS ?= 2000

# Tools come at the versions that hack/tools/go.mod pins; go keeps what it built.
TOOL = go tool -modfile=hack/tools/go.mod
CONTROLLER_GEN = $(TOOL) controller-gen
CRD_REF_DOCS = $(TOOL) crd-ref-docs
KUSTOMIZE = $(TOOL) kustomize
# Prints the directory that holds etcd and kube-apiserver, building them if need be.
CONTROLPLANE = go -C hack/controlplane run .
# The version and the commit that the programs report. Empty: what the go command records.
VERSION ?= $(shell git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null)
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null)
# Where build puts the programs.
BIN ?= bin
VERSION_PKG = github.com/hlparser/hyperliquid-parser-operator/internal/version
# Static binaries that do not contain the paths of the machine that built them.
GO_BUILD = CGO_ENABLED=0 go build -trimpath \
	-ldflags="-s -w -X $(VERSION_PKG).version=$(VERSION) -X $(VERSION_PKG).commit=$(COMMIT)"

# The image of the end-to-end tests. No registry has it, unless you push one for E2E_EXISTING=1.
E2E_IMG ?= docker.io/library/hyperliquid-parser-operator:e2e
# Flags of hack/e2e for a second cluster on one machine: --dir=/tmp/other --name=other.
E2E_CLUSTER_FLAGS ?=
# How many processes run its specs. Most of a spec is waiting.
PROCS ?= 4

SHELL = /usr/bin/env bash -o pipefail
.SHELLFLAGS = -ec

.PHONY: all
all: build

##@ General

.PHONY: help
help: ## Show this help.
	@awk 'BEGIN {FS = ":.*##"; printf "\nUsage:\n  make \033[36m<target>\033[0m\n"} /^[a-zA-Z_0-9-]+:.*?##/ { printf "  \033[36m%-16s\033[0m %s\n", $$1, $$2 } /^##@/ { printf "\n\033[1m%s\033[0m\n", substr($$0, 5) } ' $(MAKEFILE_LIST)

##@ Development

.PHONY: manifests
manifests: ## Generate the CRD and the operator's roles from the markers in the code, the dashboards, and what the chart and Argo CD copy.
	$(CONTROLLER_GEN) crd rbac:roleName=manager-role paths=./api/... paths=./internal/controller/... \
		output:crd:dir=config/crd/bases output:rbac:dir=config/rbac
	go -C hack/grafana run . write
	go run ./hack/manifests
	go run ./hack/argocd

.PHONY: generate
generate: api-docs metrics-docs ## Generate the API types' DeepCopy methods, the references of the API and the metrics, and the table of the chart's values.
	$(CONTROLLER_GEN) object:headerFile=hack/boilerplate.go.txt paths=./api/...
	go -C hack/chart run . docs

.PHONY: licenses
licenses: ## Write the licences of all that is linked into the image to THIRD_PARTY_LICENSES.
	go -C hack/image run ./licenses

.PHONY: api-docs
api-docs: ## Generate docs/api.md from the API types.
	$(CRD_REF_DOCS) --source-path=api --config=hack/apidocs/config.yaml --templates-dir=hack/apidocs/templates \
		--renderer=markdown --output-path=docs/api.md --log-level=ERROR

.PHONY: metrics-docs
metrics-docs: ## Generate docs/metrics.md from the metrics that the programs register.
	go run ./hack/metrics

.PHONY: fmt
fmt: ## Format the code.
	go fmt ./...

.PHONY: vet
vet: ## Run go vet.
	go vet ./...
	go vet -tags faultinject ./cmd/hlparser ./internal/parser/engine
	go -C hack/controlplane vet .
	go -C hack/image vet ./...
	go -C hack/chart vet ./...
	go -C hack/prometheus vet ./...
	go -C hack/grafana vet ./...

.PHONY: lint
lint: words ## Run golangci-lint, actionlint on the workflows, and look for words to avoid.
	$(TOOL) golangci-lint run
	$(TOOL) golangci-lint-kube-api-linter run --config=.golangci-api.yml ./api/...
	cd hack/controlplane && go tool -modfile=../tools/go.mod golangci-lint run
	cd hack/image && go tool -modfile=../tools/go.mod golangci-lint run ./...
	cd hack/chart && go tool -modfile=../tools/go.mod golangci-lint run ./...
	cd hack/prometheus && go tool -modfile=../tools/go.mod golangci-lint run ./...
	cd hack/grafana && go tool -modfile=../tools/go.mod golangci-lint run ./...
	go tool -modfile=hack/actionlint/go.mod actionlint

# Words that make sentences hard to read. Say who does what: a component reports, observes, reads.
AVOID = told|whoever|of which|anew|look(s|ed|ing)? at

.PHONY: words
words:
	@if git grep -I --line-number --word-regexp --ignore-case --extended-regexp '$(AVOID)' -- . \
			':!Makefile' ':!**/testdata/**' ':!**/go.sum' ':!hack/controlplane/go.mod' ':!THIRD_PARTY_LICENSES'; then \
		echo 'Avoid these words: $(AVOID)'; exit 1; fi

.PHONY: vulncheck
vulncheck: ## Look for known vulnerabilities in what the programs call; needs https://vuln.go.dev.
	$(TOOL) govulncheck ./...

# Packages whose tests take only some steps under the race detector, since they take thousands in one goroutine.
EVERY_STEP = ./internal/parser/sink/file ./internal/parser/hyperliquid
# All tests, with the specs, which are the test TestController of one package, in several processes. Each has an API
# server of its own. What is in hack and test only tests and measures the rest: it runs without the race detector.
TEST_ALL = go test -race -timeout 70m -skip '^TestController$$' ./api/... ./cmd/... ./internal/...; \
	go test -timeout 30m ./hack/... ./test/...; \
	go run github.com/onsi/ginkgo/v2/ginkgo --race --procs=$(PROCS) --timeout=70m ./internal/controller -- -test.run='^TestController$$'
# What PKG and TESTFLAGS choose, the specs in one process.
TEST_CHOSEN = go test -race -timeout 70m $(TESTFLAGS) $(PKG)

.PHONY: test
test: vet ## Run all tests; the first time, kube-apiserver is built for them where it cannot be downloaded.
	assets=$$($(CONTROLPLANE)); export KUBEBUILDER_ASSETS="$$assets"; \
	$(if $(TESTFLAGS)$(filter-out ./...,$(PKG)),$(TEST_CHOSEN),$(TEST_ALL)); \
	packages=$$(go list $(PKG)); \
	for every in $$(go list $(EVERY_STEP)); do \
		if grep -q -x -F "$$every" <<< "$$packages"; then go test -timeout 30m $(TESTFLAGS) "$$every"; fi; \
	done; \
	go -C hack/image test -count 1 ./...; \
	go -C hack/chart test -count 1 ./...

.PHONY: soak
soak: ## Kill the parser, hide, tear and prune files at random for as long as SOAK says (more as root), then try SOAK_CHECKS random sequences on its models.
	HLPARSER_SOAK=$(SOAK) go test -timeout 0 -count 1 -run '^TestSoak$$' -v ./cmd/hlparser
	go test -timeout 0 -count 1 -run '^TestModel' -v ./internal/parser/tail ./internal/parser/engine -rapid.checks=$(SOAK_CHECKS)

# How often the brokers' tests kill the parser on Kafka, and one of three brokers for each delivery.
BROKERS_KILLS ?= 100
BROKERS_BROKER_KILLS ?= 4
# Runs a package's tests on real brokers: $(call brokers_test,heading,name of the log,variables,package).
define brokers_test
	@mkdir -p dist/brokers; echo '==> $(1); log: dist/brokers/$(2).log'; \
	HLPARSER_BROKERS=1 $(3) go test -count 1 -timeout 15m -v $(4) > dist/brokers/$(2).log 2>&1 || \
		{ cat dist/brokers/$(2).log; exit 1; }; \
	grep -E '^(--- |ok |tests run )| kills' dist/brokers/$(2).log | grep -v '^--- SKIP'
endef

.PHONY: brokers
brokers: ## Test the sinks on Apache Kafka (needs Java 17 and Maven) and on two versions of nats-server, as processes; without Java or Maven, BROKERS_OPTIONAL=1 skips Kafka.
	$(call brokers_test,the NATS sink on the oldest nats-server that it supports,nats-oldest,HLPARSER_NATS=oldest,./internal/parser/sink/nats)
	$(call brokers_test,the NATS sink on the nats-server of go.mod,nats-newest,HLPARSER_NATS=newest,./internal/parser/sink/nats)
	go build -o bin/ ./hack/kafka
	@status=0; bin/kafka --prepare || status=$$?; \
	if [ $$status = 0 ]; then $(MAKE) --no-print-directory brokers-kafka; \
	elif [ $$status = 2 ] && [ -n "$(BROKERS_OPTIONAL)" ]; then \
		echo '*** NOT TESTED on Apache Kafka: Java or Maven is missing, and BROKERS_OPTIONAL is set. ***'; \
	else echo '*** FAILED: Apache Kafka cannot be run, as said above. ***'; exit 1; fi

.PHONY: brokers-kafka
brokers-kafka:
	$(call brokers_test,processes of Apache Kafka,kafka-broker,,./hack/kafka/broker)
	$(call brokers_test,the Kafka sink on Apache Kafka,kafka-sink,HLPARSER_KILLS=$(BROKERS_KILLS) HLPARSER_BROKER_KILLS=$(BROKERS_BROKER_KILLS),./internal/parser/sink/kafka)

.PHONY: test-argocd
test-argocd: ## Test config/argocd in a real Argo CD, built from Go modules with the Go that it needs (8 minutes of CPU, once); ARGOCD_RECORD=1 writes what docs/gitops.md shows.
	argocd=$$(go run ./hack/argocd/build); assets=$$($(CONTROLPLANE) --with kube-controller-manager); \
	ARGOCD_ASSETS="$$argocd" KUBEBUILDER_ASSETS="$$assets" go test -count 1 -timeout 30m -v $(TESTFLAGS) ./hack/argocd/real

.PHONY: demo
demo: ## Run a fleet on this machine, without Docker or root; SCENE=hang, sink-down, canary or slow is the story; KEEP=1 leaves it running, SINK=nats delivers to a NATS server.
	$(GO_BUILD) -o bin/demo/ ./cmd/manager ./hack/demo
	$(GO_BUILD) -tags faultinject -o bin/demo/ ./cmd/hlparser
	assets=$$($(CONTROLPLANE) --with kube-controller-manager); \
	KUBEBUILDER_ASSETS="$$assets" bin/demo/demo $(if $(SCENE),--scene=$(SCENE)) $(if $(SINK),--sink=$(SINK)) $(if $(KEEP),--keep)

# Where test-prometheus records what the dashboards show; empty: nowhere.
GRAFANA_DATA ?=

.PHONY: test-prometheus
test-prometheus: ## Test config/prometheus and config/grafana: the rules with promtool, the dashboards with Grafana's SDK, and both with a Prometheus server that watches the demo, whose faults must alert; builds all the first time, some minutes. GRAFANA_DATA=DIR records what the dashboards show.
	go -C hack/grafana test -count=1 ./...
	$(GO_BUILD) -o bin/demo/ ./cmd/manager ./hack/demo
	$(GO_BUILD) -tags faultinject -o bin/demo/ ./cmd/hlparser
	assets=$$($(CONTROLPLANE) --with kube-controller-manager); export KUBEBUILDER_ASSETS="$$assets"; \
	HLPARSER_DEMO=$(CURDIR)/bin/demo/demo GRAFANA_DATA=$(abspath $(GRAFANA_DATA)) go -C hack/prometheus test -count=1 -timeout 40m -v ./...

.PHONY: dashboard-pictures
dashboard-pictures: ## Draw the dashboards with the data of a run of test-prometheus, into docs.
	data=$$(mktemp -d); trap 'rm -rf "$$data"' EXIT; \
	$(MAKE) test-prometheus GRAFANA_DATA="$$data"; go -C hack/grafana run . draw --data "$$data"

.PHONY: e2e
e2e: ## Test the image on a real cluster (hack/e2e chooses which); KEEP=1 leaves it running, LABEL=node or FOCUS=canary chooses specs, PROCS=1 runs one after the other, E2E_RECORD=1 updates testdata and docs.
	$(GO_BUILD) -o bin/ ./cmd/manager ./cmd/kubectl-hlp
	go -C hack/image run . --tag $(E2E_IMG) --platforms linux/$(ARCH) --out $(CURDIR)/dist/e2e
	GOFLAGS=-tags=faultinject go -C hack/image run . --tag $(E2E_IMG)-faults --platforms linux/$(ARCH) \
		--out $(CURDIR)/dist/e2e/faults
	$(MAKE) build-installer IMG=$(E2E_IMG)
	trap '$(if $(KEEP),,go run ./hack/e2e $(E2E_CLUSTER_FLAGS) down)' EXIT; \
	settings=$$(go run ./hack/e2e $(E2E_CLUSTER_FLAGS) up \
		$(CURDIR)/dist/e2e/image-$(ARCH).tar $(CURDIR)/dist/e2e/faults/image-$(ARCH).tar); \
	eval "$$settings"; \
	E2E_INSTALLER=$(CURDIR)/dist/install.yaml E2E_MANAGER=$(CURDIR)/bin/manager \
		E2E_PLUGIN=$(CURDIR)/bin/kubectl-hlp \
		E2E_IMAGE=$(E2E_IMG) E2E_FAULTS_IMAGE=$(E2E_IMG)-faults \
		E2E_ARTIFACTS=$(CURDIR)/dist/e2e/shown E2E_REPORT=$(CURDIR)/dist/e2e/report.md \
		go run github.com/onsi/ginkgo/v2/ginkgo -v --procs=$(PROCS) --timeout=60m --keep-going \
		$(if $(LABEL),--label-filter='$(LABEL)') $(if $(FOCUS),--focus='$(FOCUS)') ./test/e2e

.PHONY: bench
bench: ## Measure hlparser beside its peers, some minutes, into docs/benchmarks.md.
	go run ./hack/bench --write docs/benchmarks.md

.PHONY: bench-backlog
bench-backlog: ## Drain a backlog of 44 million lines (30 GB of disk), into docs/benchmarks.md.
	go run ./hack/bench --backlog --write docs/benchmarks.md

.PHONY: simulate
simulate: ## Try the operator's judgement on 10,000 simulated days, 1,000 of each fault and fleets, into docs/benchmarks.md.
	go run ./hack/simulate --write docs/benchmarks.md
.PHONY: bench-fleet
bench-fleet: ## Measure the operator with 100, 1,000 and 5,000 simulated nodes, and 1,000 small objects beside, over an hour, into docs/benchmarks.md.
	assets=$$($(CONTROLPLANE) --with kube-controller-manager); \
	KUBEBUILDER_ASSETS="$$assets" go run ./hack/benchfleet --beside 1000 --write docs/benchmarks.md

##@ Build

.PHONY: build
build: ## Build both programs, and kubectl hlp, into bin/.
	$(GO_BUILD) -o $(BIN)/ ./cmd/manager ./cmd/hlparser ./cmd/kubectl-hlp

.PHONY: kubectl-hlp
kubectl-hlp: ## Build kubectl hlp alone into bin/.
	$(GO_BUILD) -o $(BIN)/ ./cmd/kubectl-hlp

.PHONY: platforms
platforms: ## Build kubectl hlp for the systems that nothing else builds it for, and keep nothing.
	for platform in darwin/arm64 windows/amd64; do \
		GOOS="$${platform%/*}" GOARCH="$${platform#*/}" $(GO_BUILD) -o /dev/null ./cmd/kubectl-hlp; \
	done

.PHONY: run
run: ## Run the operator here against the current kubeconfig's cluster (make install first).
	go run ./cmd/manager --parser-image=$(IMG) --poll-via=port-forward \
		--key-secret=default/hyperliquid-parser-operator-keys

.PHONY: image
image: ## Build the image IMG for amd64 and arm64 without a container engine, into dist/image; PUSH=1 pushes it.
	go -C hack/image run . --tag $(IMG) --out $(CURDIR)/dist/image $(if $(VERSION),--version $(VERSION)) $(if $(PUSH),--push)

.PHONY: docker-build
docker-build: ## Build the image IMG for linux/ARCH.
	GOOS=linux GOARCH=$(ARCH) $(GO_BUILD) -o bin/linux/$(ARCH)/ ./cmd/manager ./cmd/hlparser
	$(CONTAINER_TOOL) build --platform linux/$(ARCH) --build-arg TARGETARCH=$(ARCH) \
		--build-arg VERSION=$(VERSION) --build-arg COMMIT=$(COMMIT) -t $(IMG) .

.PHONY: docker-push
docker-push: ## Push the image IMG.
	$(CONTAINER_TOOL) push $(IMG)

.PHONY: build-installer
build-installer: rendered ## Write what deploy applies to dist/install.yaml, and with rights in one namespace to dist/install-namespaced.yaml.
	mkdir -p dist
	$(KUSTOMIZE) build bin/$(CONFIG) > dist/install.yaml
	$(KUSTOMIZE) build bin/config/namespaced > dist/install-namespaced.yaml

.PHONY: chart
chart: ## Package the Helm chart into dist; with VERSION=v1.2.3 as version 1.2.3, with the image of that tag; CHART_IMAGE names its repository.
	go -C hack/chart run . package --out $(CURDIR)/dist $(if $(VERSION),--version $(VERSION)) $(if $(CHART_IMAGE),--image $(CHART_IMAGE))

##@ Deployment

.PHONY: install
install: ## Install the CRD into the current kubeconfig's cluster.
	$(KUSTOMIZE) build config/crd | $(KUBECTL) apply -f -

.PHONY: uninstall
uninstall: ## Remove the CRD, and with it every HyperliquidParser.
	$(KUSTOMIZE) build config/crd | $(KUBECTL) delete --ignore-not-found -f -

.PHONY: deploy
deploy: rendered ## Install the CRD and the operator, running the image IMG; how many managers there are stays as it is, unless REPLICAS is set.
	replicas="$(REPLICAS)"; \
	if [ -z "$$replicas" ]; then replicas=$$($(KUBECTL) get $(DEPLOYMENT) --ignore-not-found --output=jsonpath={.spec.replicas}); fi; \
	if [ -n "$$replicas" ]; then cd bin/config/manager && $(EDIT) set replicas controller-manager="$$replicas"; fi
	$(KUSTOMIZE) build bin/$(CONFIG) | $(KUBECTL) apply -f -

.PHONY: undeploy
undeploy: ## Remove the operator and the CRD.
	$(KUSTOMIZE) build $(CONFIG) | $(KUBECTL) delete --ignore-not-found -f -

# What is installed, with the image IMG, in a copy: config stays as it is.
.PHONY: rendered
rendered:
	rm -rf bin/config
	mkdir -p bin
	cp -R config bin/config
	cd bin/config/manager && $(EDIT) set image controller=$(IMG)

# From bin/config/manager.
EDIT = go tool -modfile=../../../hack/tools/go.mod kustomize edit
