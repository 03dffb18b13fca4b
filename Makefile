# Each target is one line into scripts/, so that people, CI and this file do the same.
.PHONY: help demo cluster test bench bench-check bench-stores fuzz soak lint build generate
SHELL := /bin/bash

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## see what the protocol does: all modes, a call back, attacks that fail
	@cd cmd/owtp && go run . demo

cluster: ## three replicas of one node behind a balancer, with a Redis that it starts
	@cd examples/cluster && go run .

test: ## everything that CI runs, under 15 minutes
	@scripts/test.sh

bench: ## beside grpc-go and other peers, into docs/BENCHMARKS.md; BENCH=regexp prints a part
	@scripts/bench.sh

bench-check: ## the same, compared with docs/benchmarks.json: fails where a ratio has become worse
	@scripts/bench.sh check

bench-stores: ## stores beside the bare clients
	@scripts/bench-stores.sh

fuzz: ## fuzz every target, FUZZ_TIME=1m each
	@scripts/fuzz.sh

soak: ## faults, renewal, floods, replicas and queues for long; SOAK_CALLS, SOAK_RENEW, SOAK_ONLY
	@scripts/soak.sh

lint: ## format, vet, go.mod, leak checks, layers, shell scripts
	@scripts/lint.sh

build: ## the command-line tool, into bin/owtp
	@mkdir -p bin
	@cd cmd/owtp && go build -trimpath -o ../../bin/owtp .
	@echo bin/owtp

generate: ## the Go code of the .proto files, by tools that proto/generate/go.mod pins
	@cd proto/generate && go run . ../..
