# rlr: build, demonstrate, test, check. `make help` lists the targets.
#
# Nothing is needed but make and Go; `make test` uses a C compiler, where there is one, for the race detector.

MIN_GO    := 1.25
GO        ?= go
BIN       := bin/rlr
VERSION   := $(shell git describe --always --dirty --tags 2>/dev/null || echo unknown)
GOBUILD   := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false $(if $(TAGS),-tags $(TAGS))
DATAPLANE ?=
FUZZTIME  ?= 30s
PKG       ?= ./...

# GoBGP's own races, each with its reason, are listed in .ci/race.
export GORACE = suppressions='$(CURDIR)/.ci/race'
# The race detector needs cgo, which Go switches off where it finds no C compiler.
RACE   = $(if $(filter 1,$(shell $(GO) env CGO_ENABLED)),-race)
REPORT = $(GO) run ./internal/testreport
TOOL   = $(GO) tool -modfile=.ci/tools.mod

.DEFAULT_GOAL := build
.PHONY: build demo test test-long bench fuzz lint man fmt cover clean help go-version

build: go-version ## build bin/rlr (the default): one binary; TAGS=novcl for a static one without TCP on VPP
	$(GOBUILD) -ldflags '-X main.version=$(VERSION)' -o $(BIN) ./cmd/rlr

demo: build ## play and check the lab three-sites; DATAPLANE=embedded|vpp chooses who forwards
	$(BIN) lab run three-sites $(if $(DATAPLANE),--dataplane $(DATAPLANE))

test: go-version ## all tests, shuffled, with the race detector; PKG=./fib/... for some of them
	@$(if $(RACE),,echo "no C compiler: testing without the race detector (Debian: apt install gcc libc6-dev)")
	$(REPORT) $(GO) test $(RACE) -shuffle=on -timeout 15m $(PKG)

test-long: go-version ## test, with the slow ones (RLR_LONG=1: long models, labs and their sabotages), then fuzz
	RLR_LONG=1 $(REPORT) $(GO) test $(RACE) -shuffle=on -timeout 60m $(PKG)
	$(MAKE) fuzz

fuzz: go-version ## every fuzz target for FUZZTIME=30s
	@for pkg in $$($(GO) list $(PKG)); do \
		for target in $$($(GO) test -list '^Fuzz' "$$pkg" | grep '^Fuzz' || true); do \
			echo "$$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x "$$pkg" || exit 1; \
		done; \
	done

bench: go-version ## benchmarks; those of vppagent beside govpp in the same run: ratios count, a machine's own figures do not
	$(GO) test -run '^$$' -bench . ./fib ./memif ./minivpp/... ./wg
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 30m ./vppagent

lint: go-version ## go vet, staticcheck, gofumpt: pinned in .ci/tools.mod
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	@files="$$($(TOOL) gofumpt -l .)"; [ -z "$$files" ] || { echo "not formatted (make fmt does it):"; echo "$$files"; exit 1; }

man: go-version ## write the manual pages anew, into docs/man
	$(GO) test ./internal/man -update

fmt: go-version ## format all files
	$(TOOL) gofumpt -w .

cover: go-version ## test coverage, into coverage/
	@mkdir -p coverage
	$(GO) test -coverprofile=coverage/profile -coverpkg=./... $(PKG)
	$(GO) tool cover -func=coverage/profile | tail -1
	$(GO) tool cover -html=coverage/profile -o coverage/index.html

clean: ## remove what was built
	rm -rf bin coverage

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# Old releases of Go fail far from the cause, in the middle of a file. Debian's may be one.
go-version:
	@command -v $(GO) >/dev/null || { echo "Go is missing: install Go $(MIN_GO) or newer from https://go.dev/dl/ and put it into PATH" >&2; exit 1; }
	@have="$$(cd / && $(GO) version | sed -n 's/^go version go\([0-9][0-9.]*\).*/\1/p')"; \
	inside="$$($(GO) env GOVERSION 2>/dev/null | sed -n 's/^go\([0-9][0-9.]*\).*/\1/p')"; \
	[ -n "$$inside" ] && have="$$inside"; \
	[ -z "$$have" ] || [ "$$(printf '%s\n' $(MIN_GO) "$$have" | sort -V | head -n 1)" = $(MIN_GO) ] || { \
		echo "this is Go $$have, and rlr needs Go $(MIN_GO) or newer: https://go.dev/dl/" >&2; exit 1; }
