SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help env tour test lint lab notebooks site

PYTHON ?= $(shell command -v python3.11 || command -v python3)
profile ?= full
device ?= cpu
kernel ?= python3

PY := .venv/bin/python
READY := .venv/ready
SITE_READY := .venv/site-ready
# pip's own lines, short: each package, and every file large enough to wait for.
TERSE := awk '/^Collecting/ { print "  " $$2 } /^ +Downloading .*MB/ { print "  fetching " $$(NF-1), $$NF } \
  /^Installing collected/ { print "  unpacking, packages: " NF - 3 } { fflush() }'
# Under `python3` this means the environment made here, whatever kernels the user has of that name.
export JUPYTER_PREFER_ENV_PATH := 1

help:  ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## */\1|/' | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

env: $(READY)  ## the environment in .venv, with the tested versions

$(READY): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; v = sys.version.split()[0]; sys.exit(0 if sys.version_info >= (3, 11) else \
	  f"spectrakit needs Python 3.11 or newer, found {v}: name one with make env PYTHON=...")'
	"$(PYTHON)" -m venv .venv
	@echo "torch first, the largest of them"
	@$(PY) -m pip install -c constraints.txt torch | $(TERSE)
	@echo "spectrakit and the rest"
	@$(PY) -m pip install -c constraints.txt -e ".[notebooks,dev,trees]" | $(TERSE)
	@touch $@ && echo "environment ready: .venv"

tour: $(READY)  ## notebook 00, executed and as HTML; all=1 profile=full device=cuda kernel=NAME
	$(PY) -m tools.tour $(if $(all),--all) --profile $(profile) --device $(device) --kernel $(kernel)

# Two processes of one thread each: on two cores, small matrices wait less for each other so.
test: lint  ## lint, then every test, the notebooks last
	OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses 2

lint: $(READY)  ## ruff
	$(PY) -m ruff check

lab: $(READY)  ## JupyterLab in notebooks/
	$(PY) -m jupyter lab --notebook-dir=notebooks

notebooks: $(READY)  ## make the committed .ipynb again from their .py; name=00_start_here for one
	$(PY) -m tools.notebooks build $(name)

$(SITE_READY): $(READY)
	@$(PY) -m pip install -c constraints.txt --editable ".[site]" | $(TERSE)
	@touch $@

site: $(SITE_READY)  ## the executed notebooks and docs/ as web pages: build/site/index.html
	$(PY) -m sphinx --builder html --quiet --conf-dir docs --doctree-dir build/doctrees . build/site
	@echo '<!doctype html><title>spectrakit</title><meta http-equiv="refresh" content="0; url=docs/index.html">' > build/site/index.html
	@echo "built: build/site/index.html"
