# Two commands matter to a newcomer: `make demo` and `make test`. Both install what they need (apt packages, and
# Kubernetes built from its Go modules) and keep what they built under target/.
.PHONY: help demo demo-canary test check bench-gateway build prepare stop clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## a real cluster, the chart, a model, an answer (KEEP=1 leaves the cluster up)
	tests/cluster/sandbox $(if $(KEEP),--keep) tests/demo

demo-canary: build ## a slower version of a model rolls itself back while people ask (3 minutes)
	tests/cluster/sandbox $(if $(KEEP),--keep) tests/demo-canary

test: ## everything that must be green before a change lands
	tests/all

check: ## the quick part of `make test`: format, lints, unit tests
	tests/all check

bench-gateway: ## the gateway's added latency, cost and throughput, beside two other routers (4 minutes)
	tests/bench-gateway

build: prepare ## the four programs, from this working tree
	tests/build

prepare: ## what builds and the test bed need, installed once
	tests/cluster/prepare

stop: ## ends a cluster that `make demo KEEP=1` left up
	tests/cluster/stop

clean: ## removes everything built
	rm -rf target
