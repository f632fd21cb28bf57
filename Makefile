# Everything that can be made here; `make help` lists it.
SHELL   := /bin/bash -o pipefail
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
ENGINE  := env=$$(scripts/setup compiler docker) && eval "$$env" &&
.DEFAULT_GOAL := help
.PHONY: help build test demo bench faults sim cover lint fmt clean

help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 10

build: ## build bin/kontiki, one static binary
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X kontiki/node.Version=$(VERSION)' -o bin/kontiki ./cmd/kontiki

test: ## every test with the race detector, on real processes and a real Docker engine
	$(ENGINE) go test -race -count=1 -p 2 -timeout 15m ./...

demo: build ## three nodes, a redeploy, a killed leader, no failed request (KEEP=1 leaves it running)
	bin/kontiki demo $(if $(filter 1,$(KEEP)),--keep)

bench: ## the measured targets, each beside its baseline
	go test -tags bench -count=1 -p 1 -timeout 30m -v -run '^TestBench' ./...

faults: ## kill nodes at every fault point of a deployment
	go test -count=1 -timeout 30m -v -run 'FaultPoint|^TestKill' ./systemtest

sim: ## simulated clusters under random kills, cuts and partitions (SEED=n replays one)
	go test -count=1 -timeout 15m ./sim -run '^TestSimulation' $(if $(SEED),-v -args -seed $(SEED) -trace,-args -seeds 200)

cover: ## check that the core packages have at least 85 % of their statements tested
	$(ENGINE) scripts/cover 85 fsm cluster reconcile agent

lint: ## gofmt, go vet and staticcheck
	@files=$$(gofmt -l .); [[ -z $$files ]] || { echo "not formatted, run make fmt:"; echo "$$files"; exit 1; }
	go vet ./... && go tool staticcheck ./...

fmt: ## format the Go files
	gofmt -w .

clean: ## remove what was built
	rm -rf bin cover.out
