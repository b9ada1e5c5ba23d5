# The four words are: make setup test lint bench. `make help` says the rest.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c

GO ?= go
RACE ?= -race
FUZZTIME ?= 10s
SOAKTIME ?= 30m
BENCH ?= .
COUNT ?= 6
FIGURES ?=
PINNED ?= --data bin --server-cpus 0 --client-cpus 1 --server-procs 1

MODULES := . clients/go
TOOL := $(GO) tool -modfile=$(CURDIR)/tools/go.mod

# need CHECK PACKAGES WHY: see that a program is there. Where it is not, install
# its Debian packages if we may; otherwise say so, and fail where CI=true.
define need
	if { $(1); } >/dev/null 2>&1; then exit 0; fi; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $(2) && exit 0; \
	fi; \
	echo >&2; \
	echo "*** MISSING: $(strip $(2)): $(3)" >&2; \
	echo "*** On Debian or Ubuntu: sudo apt-get install $(strip $(2)). Elsewhere, its like." >&2; \
	echo >&2; \
	[ "$${CI:-}" != true ]
endef

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: modules compiler browser tools ## Install what tests, examples and linters need

.PHONY: test
test: modules compiler ## Vet and test everything, with the race detector (RACE= to do without)
	@race='$(RACE)'; command -v $${CC:-cc} >/dev/null || command -v gcc >/dev/null || race=; \
	for m in $(MODULES); do (cd $$m; $(GO) vet ./...; $(GO) test $$race -timeout 12m ./...); done

.PHONY: lint
lint: modules ## Check formats, modern Go and the linters
	@for m in $(MODULES); do (cd $$m; \
	  diff=$$(gofmt -l . && $(GO) fix -diff ./...) || true; \
	  if [ -n "$$diff" ]; then echo "$$diff"; echo "gofmt or go fix would change this; run: make fmt" >&2; exit 1; fi; \
	  $(TOOL) golangci-lint run --config $(CURDIR)/.golangci.yml ./...); done

.PHONY: fmt
fmt: modules ## Format the code and apply Go's fixers
	for m in $(MODULES); do (cd $$m; $(GO) fix ./...; $(TOOL) golangci-lint fmt --config $(CURDIR)/.golangci.yml ./...); done

.PHONY: docs
docs: modules ## Write the pages that are made from the code
	$(GO) test -count=1 -run TheReference ./internal/config -update

.PHONY: bench
bench: modules ## Run the Go benchmarks (BENCH=regexp, COUNT=6); compare two outputs with benchstat
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) ./...

.PHONY: figures
figures: modules ## Measure every figure we publish, into bench/ (FIGURES='--only storm', PINNED=flags)
	$(GO) build -o bin/carillon ./cmd/carillon
	bin/carillon bench all --out bench $(PINNED) $(FIGURES)

.PHONY: soak
soak: modules ## Run the long faults: clients that come and go for SOAKTIME=30m, kills, random everything
	CARILLON_SOAK=$(SOAKTIME) CARILLON_SOAK_DIR=$(CURDIR)/bench $(GO) test -count=1 -timeout 0 -v -run '^TestSoak$$' ./internal/server
	CARILLON_KILLS=20 $(GO) test -count=1 -timeout 0 -v -run '^TestKill' ./internal/server
	CARILLON_PROPERTY_TIME=11m $(GO) test -count=1 -timeout 0 -run Everybody ./internal/transport/transporttest

.PHONY: fuzz
fuzz: modules ## Fuzz every target for a short while (FUZZTIME=10s)
	FUZZTIME=$(FUZZTIME) .ci/fuzz

.PHONY: example
example: modules browser ## Run the live example: real events, watched in three ways
	examples/live.sh

.PHONY: example-hooks
example-hooks: modules browser ## Run the example of webhooks: real payloads, and a node that is killed
	examples/hooks.sh

.PHONY: modules
modules:
	@for m in $(MODULES); do (cd $$m; $(GO) mod download); done

.PHONY: tools
tools:
	@cd tools; $(GO) mod download

.PHONY: compiler
compiler: # of C: the race detector needs one
	@[ -n "$(RACE)" ] || exit 0; $(call need,command -v $${CC:-cc} || command -v gcc,gcc libc6-dev,the race detector needs a C compiler and is left out)

.PHONY: browser
browser: # the live example looks at its page in Chromium, driven by playwright-core
	@$(call need,command -v chromium || command -v google-chrome,chromium,the live example opens its page in it)
	@$(call need,command -v curl,curl,the live example is a client with it)
	@$(call need,command -v npm,nodejs npm,the live example drives the browser with a package of theirs)
	@for p in examples/package.json examples/*/package.json; do \
	  [ ! -f $$p ] || ! command -v npm >/dev/null || npm ci --prefix $$(dirname $$p) --ignore-scripts --no-audit --no-fund; done
