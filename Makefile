# The two commands to begin with: `make demo` (a whole fabric on this machine) and `make test`.
SHELL := /bin/bash
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
BIN := .venv/bin
LAB ?= clos

.PHONY: help setup setup-openstack demo test test-fast test-openstack test-tempest check format bench lock clean

help:  ## what can be made here
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup:  ## system packages and .venv (nothing to do: under 3 s)
	@scripts/setup
	@$(if $(VMS)$(MIXED),scripts/setup-vms)
	@$(if $(MIXED),scripts/setup-runtimes)
	@$(if $(MIXED),scripts/install-packages libvirt-packages.txt)

setup-openstack:  ## .venv-openstack, MariaDB and RabbitMQ: a cloud's control plane to test against; virtual machines where there can be any
	@scripts/setup-openstack
	@scripts/setup-vms || true

demo: setup  ## bring the default lab up, apply policy, check it with packets, break and heal things; VMS=1: with virtual machines; MIXED=1: another one, with containers, machines and bare metal
	@$(SUDO) $(BIN)/tabinet demo $(if $(VMS),--vms) $(if $(MIXED),--mixed)

test: setup  ## all tests (root: they use real namespaces, nftables, BIRD, etcd)
	@scripts/test

test-fast: setup  ## unit, property and golden tests only
	$(BIN)/python -m pytest -n 2 tests/unit tests/property tests/golden

test-openstack: setup setup-openstack  ## the Neutron driver in a real Neutron, with a real etcd
	$(SUDO) $(BIN)/python -m pytest tests/openstack

test-tempest: setup setup-openstack  ## all of tempest's API tests of networks against a whole control plane (make test runs a part)
	$(SUDO) env TABINET_TEMPEST="$${TABINET_TEMPEST:-all}" $(BIN)/python -m pytest -s tests/openstack/test_openstack_tempest.py

check: setup  ## lint, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format:  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup  ## measure; each benchmark brings its baseline
	$(SUDO) $(BIN)/python -m benchmarks all

lock:  ## compile requirements/*.txt anew
	@[ -x .cache/uv/bin/uv ] || { python3 -m venv .cache/uv && .cache/uv/bin/pip install -q uv; }
	.cache/uv/bin/uv pip compile -q --generate-hashes --no-emit-index-url --universal --python-version 3.11 pyproject.toml -o requirements/runtime.txt
	.cache/uv/bin/uv pip compile -q --generate-hashes --no-emit-index-url --universal --python-version 3.11 --extra dev pyproject.toml -o requirements/dev.txt
	.cache/uv/bin/uv pip compile -q --generate-hashes --no-emit-index-url --universal --python-version 3.11 -c requirements/dev.txt --extra openstack --extra openstack-test pyproject.toml -o requirements/openstack.txt

clean:  ## remove labs, virtual environments and caches
	-@[ -x $(BIN)/tabinet ] && $(SUDO) $(BIN)/tabinet lab down --all
	rm -rf .venv .venv-openstack .cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
