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
# In how many processes the specs run, each with an API server of its own: they mostly wait.
PROCS ?= 3
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

# What a cluster out of processes needs of Kubernetes, and the image that runs on it, which no registry has.
CLUSTER_PROGRAMS = kube-controller-manager,kube-scheduler,kubelet,kube-proxy
E2E_IMG = docker.io/library/hyperliquid-parser-operator:e2e

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
manifests: ## Generate the CRD and the operator's roles from the markers in the code.
	$(CONTROLLER_GEN) crd rbac:roleName=manager-role paths=./api/... paths=./internal/controller/... \
		output:crd:dir=config/crd/bases output:rbac:dir=config/rbac
	go run ./hack/manifests

.PHONY: generate
generate: api-docs ## Generate the API types' DeepCopy methods and the API reference.
	$(CONTROLLER_GEN) object:headerFile=hack/boilerplate.go.txt paths=./api/...

.PHONY: api-docs
api-docs: ## Generate docs/api.md from the API types.
	$(CRD_REF_DOCS) --source-path=api --config=hack/apidocs/config.yaml --templates-dir=hack/apidocs/templates \
		--renderer=markdown --output-path=docs/api.md --log-level=ERROR

.PHONY: fmt
fmt: ## Format the code.
	go fmt ./...

.PHONY: vet
vet: ## Run go vet.
	go vet ./...
	go vet -tags faultinject ./cmd/hlparser ./internal/parser/engine
	go -C hack/controlplane vet .
	go -C hack/image vet ./...

.PHONY: lint
lint: words ## Run golangci-lint, actionlint on the workflows, and look for words to avoid.
	$(TOOL) golangci-lint run
	$(TOOL) golangci-lint-kube-api-linter run --config=.golangci-api.yml ./api/...
	cd hack/controlplane && go tool -modfile=../tools/go.mod golangci-lint run
	cd hack/image && go tool -modfile=../tools/go.mod golangci-lint run ./...
	$(TOOL) actionlint

# Words that make sentences hard to read. Say who does what: a component reports, observes, reads.
AVOID = told|whoever|of which|anew|look(s|ed|ing)? at

.PHONY: words
words:
	@if git grep -I --line-number --word-regexp --ignore-case --extended-regexp '$(AVOID)' -- . \
			':!Makefile' ':!**/testdata/**' ':!**/go.sum' ':!hack/controlplane/go.mod'; then \
		echo 'Avoid these words: $(AVOID)'; exit 1; fi

.PHONY: vulncheck
vulncheck: ## Look for known vulnerabilities in what the programs call; needs https://vuln.go.dev.
	$(TOOL) govulncheck ./...

# Packages whose tests take only some steps under the race detector, since they take thousands in one goroutine.
EVERY_STEP = ./internal/parser/sink/file
# The specs, which are the test TestController of this package.
SPECS = ./internal/controller

.PHONY: test
test: vet ## Run all tests; the first time, kube-apiserver is built for them where it cannot be downloaded.
	assets=$$($(CONTROLPLANE)); export KUBEBUILDER_ASSETS="$$assets"; \
	if [ -n '$(TESTFLAGS)' ] || [ '$(PKG)' != ./... ]; then \
		go test -race -timeout 70m $(TESTFLAGS) $(PKG); \
	else \
		go test -race -timeout 70m -skip '^TestController$$' ./...; \
		go tool ginkgo run --race --procs=$(PROCS) --timeout=70m $(SPECS) -- -test.run='^TestController$$'; \
	fi
	packages=$$(go list $(PKG)); \
	for every in $$(go list $(EVERY_STEP)); do \
		if grep --quiet --line-regexp --fixed-strings "$$every" <<< "$$packages"; then go test $(TESTFLAGS) "$$every"; fi; \
	done
	go -C hack/image test ./...

.PHONY: soak
soak: ## Kill the parser, hide, tear and prune files at random for as long as SOAK says (more as root), then try SOAK_CHECKS random sequences on its models.
	HLPARSER_SOAK=$(SOAK) go test -timeout 0 -count 1 -run '^TestSoak$$' -v ./cmd/hlparser
	go test -timeout 0 -count 1 -run '^TestModel' -v ./internal/parser/tail ./internal/parser/engine -rapid.checks=$(SOAK_CHECKS)

.PHONY: demo
demo: ## Run a fleet on this machine, without Docker or root; KEEP=1 leaves it running, SINK=nats delivers to a NATS server.
	$(GO_BUILD) -o bin/demo/ ./cmd/manager ./hack/demo
	$(GO_BUILD) -tags faultinject -o bin/demo/ ./cmd/hlparser
	assets=$$($(CONTROLPLANE) --with kube-controller-manager); \
	KUBEBUILDER_ASSETS="$$assets" bin/demo/demo --sink=$(or $(SINK),file) $(if $(KEEP),--keep)

.PHONY: e2e
e2e: ## Test the image on a real cluster out of processes (root, Linux, Debian's containerd); KEEP=1 leaves it running, LABEL=node chooses.
	assets=$$($(CONTROLPLANE) --with $(CLUSTER_PROGRAMS)); export KUBEBUILDER_ASSETS="$$assets"; \
	go build -o bin/cluster ./hack/cluster; \
	$(GO_BUILD) -o bin/ ./cmd/manager; \
	go -C hack/image run . --tag $(E2E_IMG) --platforms linux/$(ARCH) --out $(CURDIR)/dist/e2e; \
	$(MAKE) build-installer IMG=$(E2E_IMG); \
	trap '$(if $(KEEP),,bin/cluster down)' EXIT; \
	bin/cluster up; \
	bin/cluster load dist/e2e/image-$(ARCH).tar; \
	KUBECONFIG=/tmp/hlparser-cluster/admin.conf E2E_INSTALLER=$(CURDIR)/dist/install.yaml \
		E2E_CLUSTER=$(CURDIR)/bin/cluster E2E_CLUSTER_DIR=/tmp/hlparser-cluster E2E_ARTIFACTS=$(CURDIR)/dist/e2e/shown \
		E2E_IMAGE=$(E2E_IMG) E2E_MANAGER=$(CURDIR)/bin/manager \
		go test -count 1 -timeout 60m ./test/e2e -v -ginkgo.v $(if $(LABEL),-ginkgo.label-filter='$(LABEL)')

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
build: ## Build both programs into bin/.
	$(GO_BUILD) -o $(BIN)/ ./cmd/manager ./cmd/hlparser

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
build-installer: rendered ## Write everything that deploy applies to dist/install.yaml.
	mkdir -p dist
	$(KUSTOMIZE) build bin/$(CONFIG) > dist/install.yaml

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
