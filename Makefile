# `make` lists the targets. Everything happens in .venv in this checkout; no other environment is touched.
PYTHON ?= python3
# Which tests `make test` runs, as a pytest mark expression.
MARKS ?= not slow and not gpu and not browser and not ray

BIN := .venv/bin
RUNTIME := .venv/.installed
DEV := .venv/.installed-dev
EXTRAS := .venv/.installed-extras
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt
# One thread per process: small nets gain nothing from more, and on a busy machine they wait for each other;
# sums then repeat bit for bit, and two test workers fill two cores.
ONE_THREAD := OMP_NUM_THREADS=1
PYTEST := $(ONE_THREAD) $(BIN)/python -m pytest -n 2 --cov

DEMO := runs/demo runs/demo-no-latents runs/demo-vae

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Each recipe uses all cores by itself.
.NOTPARALLEL:
.PHONY: help demo test test-all lint docs bench coverage clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(DEMO:=/metrics.json) ## train on the built-in digits, evaluate, write runs/demo/report.html
	$(ONE_THREAD) $(BIN)/deltavae report $(DEMO) --out runs/demo/report.html
	@echo "The report is at runs/demo/report.html: open it in a browser."

test: lint ## run the checks and the tests that are not slow
	$(PYTEST) -m "$(MARKS)"

test-all: MARKS := not gpu
test-all: $(EXTRAS) test ## run the checks and all tests, the slow, the browser, the Ray and the Pyro ones too

lint: $(DEV) ## run ruff, mypy, pydoclint and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pydoclint --quiet src
	$(BIN)/lint-imports

docs: $(DEV) ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "The documentation is at site/index.html."

bench: $(RUNTIME) ## measure speed and memory for docs/performance.md, about 20 minutes of one core
	$(ONE_THREAD) $(BIN)/python benchmarks/performance.py

coverage: $(DEV) ## write line coverage of the tests to htmlcov/
	$(PYTEST) --cov-report=html
	@echo "The coverage report is at htmlcov/index.html."

clean: ## remove caches and built pages; .venv/ and runs/ stay
	rm -rf site htmlcov dist .coverage .coverage.* .hypothesis
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find src tests examples -type d -name __pycache__ -prune -exec rm -rf {} +

# The environment: what the package needs, then what its developers need on top.
# pydoclint's docstring_parser_fork writes over the files of jsonargparse's docstring_parser, which it extends;
# it has to be the last of the two, whatever the order in which pip chose to install them.
$(RUNTIME): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("deltavae needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -e .
	@touch $@

$(DEV): $(RUNTIME)
	$(PIP) -e '.[dev,docs]'
	$(PIP) --no-deps --force-reinstall docstring_parser_fork
	@touch $@

# What only some tests need; where Ray has no package for this system, its tests are skipped.
$(EXTRAS): $(DEV)
	$(PIP) -e '.[pyro]'
	-$(PIP) -e '.[ray]'
	@touch $@

# The demo's runs. A finished run has its metrics.json; one that was interrupted goes on.
runs/demo/metrics.json: CONFIG := configs/demo/delta-vae.yaml
runs/demo-no-latents/metrics.json: CONFIG := configs/demo/no-latents.yaml
runs/demo-vae/metrics.json: CONFIG := configs/demo/vae.yaml
$(DEMO:=/metrics.json): | $(RUNTIME)
	$(ONE_THREAD) $(BIN)/deltavae fit --run-dir $(@D) $(if $(wildcard $(@D)/config.yaml),--resume,--config $(CONFIG))
