# Two commands are all it takes: `make demo` and `make test`. `make docs` writes the documentation site to site/.
# All of them make .venv first, once.

PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test lint docs tutorials benchmarks dist

demo: $(VENV)/train.stamp
	$(VENV)/bin/python examples/demo.py demo

test: $(VENV)/dev.stamp lint
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses 2 --dist worksteal

lint: $(VENV)/dev.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/train.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[train,demo]'
	touch $@

$(VENV)/dev.stamp: $(VENV)/train.stamp
	$(PIP) --editable '.[train,demo,encoders,lora,tables,heif,meteor,export,openvino,serve,metadata,alt,hub,bulk,shards,datasets,languages,dev]'
	touch $@

$(VENV)/docs.stamp: $(VENV)/train.stamp
	$(PIP) --editable '.[train,docs]'
	touch $@

docs: $(VENV)/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

tutorials: $(VENV)/docs.stamp
	OMP_NUM_THREADS=1 $(VENV)/bin/python website/tutorials.py

benchmarks: $(VENV)/dev.stamp
	$(VENV)/bin/python benchmarks/tables.py $(if $(RUN),--run $(RUN)) $(if $(PHOTOS),--photos $(PHOTOS)) \
		$(if $(SCORED),--scored $(SCORED)) --into docs/benchmarks.md

dist: $(VENV)/bin/python  # a wheel and an archive of the source, in dist/
	$(PIP) hatchling
	$(VENV)/bin/python -m hatchling build -d dist
