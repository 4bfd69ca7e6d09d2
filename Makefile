# `make` lists the targets.  Everything runs in .venv, which is made when it is missing.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
READY := $(VENV)/.installed

# What these need is skipped, with the reason printed, where the folders are not there.
ifneq ($(wildcard ../shared/traces),)
export TRACEKIT_TRACES ?= $(abspath ../shared/traces)
endif
ifneq ($(wildcard ../shared/vectors),)
export TRACEKIT_VECTORS ?= $(abspath ../shared/vectors)
endif
ifneq ($(wildcard ../shared/lab/bzImage),)
export TRACEKIT_LAB_KERNEL ?= $(abspath ../shared/lab/bzImage)
endif

.DEFAULT_GOAL := help
.PHONY: help demo test check lab-test lint types fuzz matrix nightly bench docs notebooks site capacity assets wheel clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY)  ## replay a small recording of a real kernel; exit 0 if its stale mapping was found
	$(RUN) tracekit demo

test: $(READY)  ## everything that needs no root, no network and no lab
	$(RUN) pytest -n auto --dist loadfile

check: lint types test  ## what CI runs

lab-test: $(READY)  ## record in real kernels that QEMU emulates; exit 2 where none boots
	$(RUN) pytest -q -m lab tests/lab

lint: $(READY)  ## ruff
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types: $(READY)  ## mypy, strict
	$(RUN) mypy

fuzz: $(READY)  ## hostile inputs for every parser, half an hour (SECONDS=...), a table in the end
	PYTHONPATH=tests NUMBA_DISABLE_JIT=1 $(RUN) fuzz --seconds $(or $(SECONDS),1800)

matrix: $(READY)  ## every fault and every workload, half an hour (MATRIX=...); writes docs/matrix.md
	PYTHONPATH=tests NUMBA_DISABLE_JIT=1 $(RUN) matrix $(MATRIX)

nightly: $(READY)  ## the project audits itself: recordings, matrix, losses, fuzzers, oracle, long tests (NIGHTLY=...)
	PYTHONPATH=tests $(RUN) nightly $(NIGHTLY)

bench: $(READY)  ## measure everything (BENCH=...): benchmarks/results.json, README.md's table
	$(RUN) benchmarks $(BENCH)

docs: $(READY)  ## write the generated pages anew
	$(VENV)/bin/python docs/generate.py
	$(VENV)/bin/python docs/models/generate.py

notebooks: $(READY)  ## run the notebooks, and compare what they say with what is committed
	$(RUN) pytest -q tests/test_notebooks.py

# Not with --quiet, which hides the warnings from --strict too.
site: export NO_MKDOCS_2_WARNING = 1
site: $(VENV)/.docs  ## build the documentation into site/; a warning is an error
	$(RUN) mkdocs build --strict

assets:  ## fetch the HTML report's libraries anew, in the versions of tracekit/report/assets/versions
	cd tracekit/report/assets && rm -rf vendor && mkdir vendor && while read -r name version files; do \
	  mkdir vendor/$$name && for file in $$files; do \
	    tar -xzf "$$(npm pack --silent $$name@$$version)" -O package/$$file > vendor/$$name/$$(basename $$file); done; \
	done < versions; rm -f *.tgz

capacity: $(READY)  ## write docs/capacity.md anew
	$(VENV)/bin/python docs/capacity.py

wheel: $(READY)  ## build the wheel into dist/
	$(RUN) build --wheel

clean:  ## remove .venv and what was built
	rm -rf $(VENV) dist build site

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 or newer is needed (make PYTHON=...)" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.docs: $(READY)
	$(RUN) pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@
