# Everything from a bare checkout: a virtual environment in .venv, pinned by constraints.txt.
# `make demo` and `make test` need nothing before them but Python 3.11 or newer.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= runs/demo
DB := $(RUN)/phonenas.db
MODEL := $(RUN)/model.json

# The programs that tests start read the bytecode that the first of them wrote.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test slow coverage real site wheel install check fuzz bench bench-tables bench-device bench-training paper lint clean help

help:  ## say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(VENV)/.core: pyproject.toml constraints.txt
	@sh tools/install.sh $(VENV) $(PYTHON) .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@sh tools/install.sh $(VENV) $(PYTHON) '.[dev]'
	@touch $@

install: $(VENV)/.core  ## the package and its command in .venv

demo $(MODEL): export PHONENAS_DB = $(DB)

demo: $(VENV)/.core  ## profile this computer, search, validate, report
	@mkdir -p $(RUN)
	$(BIN)/phonenas profile --device local --space mnasnet --operators 200 --networks 20 --network mobilenet-v2 --network mnasnet-a1 --network mnasnet-b1 --network mnasnet-small
	@$(MAKE) --no-print-directory $(MODEL)
	$(BIN)/phonenas search --device local --space mnasnet --strategy nsga2 --target mobilenet-v2 --evaluations 8000 --seed 0 --model $(MODEL) --out $(RUN)
	$(BIN)/phonenas validate $(RUN) --device local --top 5 --model $(MODEL)
	$(BIN)/phonenas report $(RUN)

# The model is written beside the store, where every command finds it. The demo's run keeps a copy:
# a later `phonenas fit`, which uses what the validation measured, does not change it.
$(MODEL):
	$(BIN)/phonenas fit --device local
	@cp $(RUN)/phonenas.local.model.json $(MODEL)

test: $(VENV)/.dev  ## the tests, at most 5 minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not (slow or adbd or sshd or postgres or ray or faults or qemu or phone or notebook)"

# A test that ran out of a wait is run again, twice at most, and told as R (only_rerun in
# pyproject.toml); in this time it may run out of several.
PATIENTLY := --reruns 2 --rerun-show-tracebacks --timeout 1200

slow: $(VENV)/.dev  ## long examinations: tables of others, strategies killed and resumed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m slow $(PATIENTLY)

coverage: $(VENV)/.dev  ## branch coverage of the tests but the slow ones, by module; some 15 minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --cov --cov-report=term:skip-covered -m "not (slow or adbd or sshd or postgres or ray or faults or qemu or phone or notebook or browser)"

real: $(VENV)/.dev  ## faults, notebooks, and tests on a real adbd, sshd, PostgreSQL and Ray (see tools/real.sh)
	$(BIN)/python -m pytest -m "(adbd or sshd or postgres) and not faults" $(PATIENTLY)
	$(BIN)/python -m pytest -m ray $(PATIENTLY)
	$(BIN)/python -m pytest tests/devices/test_faults.py $(PATIENTLY)
	$(BIN)/python -m pytest -m notebook $(PATIENTLY)

wheel: $(VENV)/.dev  ## build the sdist and the wheel, and use the wheel outside the checkout
	$(BIN)/python tools/wheel.py --keep dist

site: $(VENV)/.core  ## the documentation as a site in build/site; each link is checked
	@sh tools/install.sh $(VENV) $(PYTHON) '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lint: $(VENV)/.dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test  ## lint, then the tests

fuzz: $(VENV)/.dev  ## 10,000 mutated files of each kind: an answer or a named error
	$(BIN)/python -m tools.fuzz --count 10000

bench: $(VENV)/.dev  ## benchmarks: printed, never asserted
	$(BIN)/python -m tools.bench

# Some hours; a stopped one goes on. Several may work at once, each with other --search.
bench-tables: $(VENV)/.dev  ## shares of exact fronts by search and budget: the table of docs/search.md
	$(BIN)/python -m tools.bench.tables --into runs/tables.jsonl
	$(BIN)/python -m tools.bench.tables --into runs/tables.jsonl --page docs/search.md

# On a quiet computer: some 25 minutes of measuring, once.
bench-device: $(VENV)/.dev  ## held-out networks and ONNX files, predicted and measured here
	$(BIN)/python -m tools.bench.local --db runs/bench.db
	$(BIN)/python -m tools.bench.local --db runs/bench2.db --threads 2
	$(BIN)/python -m tools.bench.onnx_files --db runs/onnx.db
	$(BIN)/python -m tools.bench.known --db runs/known.db

bench-training: $(VENV)/.dev  ## training beside a bare loop, image pipeline, workers; on a GPU where there is one
	$(BIN)/python -m tools.bench.training
	$(BIN)/python -m tools.bench.pipeline
	$(BIN)/python -m tools.bench.cluster

# After `make demo`, on a quiet computer: some five minutes of searching, and of measuring.
paper: $(VENV)/.dev  ## the MnasNet paper's claims, tried here: docs/paper.md
	$(BIN)/python tools/paper.py --db $(DB) --device local --model $(MODEL) --measure

clean:  ## remove the environment and the demo
	rm -rf $(VENV) runs/demo
