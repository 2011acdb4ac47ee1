# Everything here works as root on a fresh Debian or Ubuntu with Rust installed; `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
PREFIX ?= /usr/local
UNIT_DIR ?= /etc/systemd/system
# A second copy of the checkout may run its own demo beside the first: see deploy/demo/demo.sh.
DEMO := deploy/demo/demo.sh

.PHONY: help setup setup-lab build demo demo-shell demo-down lab-vms lab-shell test check fix bench soak fuzz install uninstall

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install the tools that are missing (apt)
	@deploy/setup.sh

setup-lab:
	@deploy/setup.sh lab

build: ## Build the binary, target/debug/weft
	$(CARGO) build -p weft

demo: setup build ## Start three hosts, a cluster and services, and show them
	@$(DEMO) up

demo-shell: ## A shell on a host of the demo (HOST=n1)
	@$(DEMO) shell $(or $(HOST),n1)

demo-down: ## Remove the demo
	@$(DEMO) down

lab-vms: setup-lab build ## Start virtual machines (VMS=3) and a cluster of them, and show it
	@deploy/lab/vm run --vms $(or $(VMS),3) deploy/lab/cluster.sh

lab-shell: setup-lab build ## The same, then a shell on the first machine
	@deploy/lab/vm shell --vms $(or $(VMS),3) deploy/lab/cluster.sh

test: setup-lab build ## Run all tests (as root: they make network namespaces)
	@deploy/test.sh

soak: setup-lab build ## Run all tests, the long ones too
	@WEFT_SOAK=1 deploy/test.sh

check: setup ## Formatting, lints and the arrows between the crates; writes nothing
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) test -q -p weft-tests --test arrows

fix: ## Format, and apply the lints' own corrections
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	$(CARGO) fmt --all

fuzz: setup ## Fuzz the readers of foreign bytes (FUZZ_SECONDS=60 each, TARGET=name for one)
	@deploy/fuzz.sh

bench: setup ## Measure, and write docs/benchmarks.md
	@deploy/bench.sh

install: ## Install the release binary and the systemd unit
	$(CARGO) build --release -p weft
	install -D -m 0755 target/release/weft $(DESTDIR)$(PREFIX)/bin/weft
	install -D -m 0644 deploy/weft.service $(DESTDIR)$(UNIT_DIR)/weft.service
	@echo "start it with: systemctl enable --now weft"

uninstall: ## Remove what install put there
	rm -f $(DESTDIR)$(PREFIX)/bin/weft $(DESTDIR)$(UNIT_DIR)/weft.service
