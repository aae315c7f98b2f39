# make demo   everything from nothing, one job of every modality, results in demo/
# make test   every test but those that take minutes; make long runs these
# make up     the platform and its dashboard; make down stops it
# make check  lint, types, layers       make bench  benchmarks       make docs  generated pages
# make faults a thousand kills and thirty of each server fault on every backend, with a table; about 45 minutes
# make bench-engine   the engine's, into docs/engine.md

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test long up down check format bench bench-engine faults docs gallery clean

help:
	@sed -n 's/^# //p' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml deploy/constraints.txt
	@$(PYTHON) deploy/check_machine.py
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): about 6 GB, a few minutes the first time."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint deploy/constraints.txt \
		--group dev --editable '.[all]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint deploy/constraints.txt --no-deps k-diffusion tinysoundfont
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/python examples/demo.py demo

test: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --ignore=tests/faults -n 2 --dist loadfile; first=$$?; \
		$(BIN)/python -m pytest tests/faults -n 2 --dist loadscope && exit $$first

long: $(STAMP)
	@$(BIN)/python -m pytest -m long

up: $(STAMP)
	@$(BIN)/perrin up

down: $(STAMP)
	@$(BIN)/perrin down

check: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python docs/generate.py --check

format: $(STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(STAMP)
	@for file in benchmarks/*/bench_*.py; do $(BIN)/python $$file || exit 1; done

bench-engine: $(STAMP)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python benchmarks/engine/bench_engine.py
	@$(BIN)/python benchmarks/engine/document.py

faults: $(STAMP)
	@PYTHONPATH=tests/doubles$${PYTHONPATH:+:$$PYTHONPATH} OMP_NUM_THREADS=1 $(BIN)/python tests/faults/run.py $(FAULTS)

docs: $(STAMP)
	@$(BIN)/python docs/generate.py

gallery: $(STAMP)
	@$(BIN)/python docs/gallery.py

clean:
	rm -rf $(VENV) demo dist build
