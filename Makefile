# Everything from nothing: needs Python >= 3.11, git and make. `make help` lists the targets.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Published data sets, for tests and runs that want them; the demo needs none
export AMNESIAC_DATA_ROOT ?= $(firstword $(wildcard ../shared/datasets))
# One thread a test process: `make test` runs one process a core
test: export OMP_NUM_THREADS = 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help install demo dashboard test lint browser postgresql campaign audit bench table1 screenshots clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## create .venv and install, pinned by constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python >= 3.11 is needed, {sys.executable} is {v.major}.{v.minor}: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: install  ## the whole pipeline on real digits: train, forget 20 people and the class 3, compare with retraining
	amnesiac cycle --random-people 20 --forget-class 3

dashboard: install  ## look at past runs: http://127.0.0.1:4200 until Ctrl-C
	amnesiac dashboard

lint: install  ## ruff, mypy (strict), import contracts
	ruff check .
	ruff format --check .
	mypy
	lint-imports

# Chromium for the tests of the pages: Debian's package where we may install it; without one they are skipped, and say so
browser:
	@if test -n "$$AMNESIAC_CHROMIUM" || which chromium chromium-browser google-chrome google-chrome-stable 2>/dev/null | grep -q .; then :; \
	elif test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
		echo "installing Chromium (apt-get)"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null \
		|| echo "Chromium can't be installed: the tests that need a browser are skipped"; \
	else echo "no Chromium: the tests that need a browser are skipped"; fi

# PostgreSQL for the tests of a journal on a server: the same way
postgresql:
	@if ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || which initdb >/dev/null 2>&1; then :; \
	elif test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
		echo "installing PostgreSQL (apt-get)"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >/dev/null \
		|| echo "PostgreSQL can't be installed: the tests that need a server are skipped"; \
	else echo "no PostgreSQL: the tests that need a server are skipped"; fi

test: lint browser postgresql  ## lint and the test suite (`make test ARGS='-k name'` for a part)
	@$(if $(AMNESIAC_DATA_ROOT),echo "data root: $(AMNESIAC_DATA_ROOT)",echo "data root: none (AMNESIAC_DATA_ROOT); tests on published MNIST and CIFAR-100 are skipped")
	python -m pytest -n auto --dist loadfile --cov --cov-report=term:skip-covered --cov-fail-under=$(if $(ARGS),0,90) $(ARGS)

campaign: export OMP_NUM_THREADS = 1
campaign: install postgresql  ## kills, full disks, damage, concurrency, planted faults: writes docs/reliability-results.md (`AMNESIAC_CAMPAIGN_KILLS=1000` for a release)
	python -m pytest -m campaign $(ARGS)

audit: $(VENV)/.audit-installed  ## known vulnerabilities of the pinned packages (pip-audit in a folder of its own; needs the network)
	$(VENV)-audit/bin/pip-audit --strict --disable-pip --no-deps -r constraints.txt

$(VENV)/.audit-installed: $(STAMP)
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	touch $@

bench: install  ## how near forgetting lands to retraining, MNIST-5k, 5 minutes (`make bench ARGS='--profile full'` for all)
	amnesiac bench forgetting $(ARGS)

table1: install  ## MNIST (60,000), the paper's small CNN, forget class 3 with each method: the paper's Table 1 beside ours
	python benchmarks/table1.py

screenshots: install browser  ## the pictures in docs/screenshots, of the demo in a temporary folder (Chromium; two to five minutes)
	python -m docs.screenshots

clean:  ## remove what the pipeline has computed here (data, models, ledger, runs); requests, HEAD, keys, receipts and reports stay
	rm -rf .prefect $(filter-out pipeline_data/README.md pipeline_data/requests.json pipeline_data/journal pipeline_data/published pipeline_data/keys pipeline_data/receipts pipeline_data/reports pipeline_data/signing,$(wildcard pipeline_data/*))
