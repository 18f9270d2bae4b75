# Each target does its own set-up: .venv is made when it is missing and brought up to date when pyproject.toml or
# constraints.txt changed. Needs Python >= 3.11, make and git, nothing else.
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
WORKERS ?= 2
SECONDS ?= 600
LETTERS ?= 2000

export PYTHON

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format docs bench soak fuzz mutants clean

help:
	@echo "make demo     the mail reader on a private overlay of 12 nodes; nothing is kept"
	@echo "make test     all tests (ARGS='tests/overlay -k lookup' for some)"
	@echo "make lint     ruff, mypy, the direction of imports"
	@echo "make format   let ruff put the source in order"
	@echo "make docs     the documentation as a site in site/; fails at a link that leads nowhere"
	@echo "make bench    the figures, side by side with peers (ARGS=screen for one)"
	@echo "make soak     at length: the simulated community (ARGS='--seconds 600'), real processes (LETTERS=2000), then"
	@echo "              the fuzzers (SECONDS=60 each)"
	@echo "make fuzz     the fuzzers alone (ARGS='request card' SECONDS=60)"
	@echo "make mutants  would the tests notice a small change of what holds the promise? (ARGS=mail.sealed.body for one module)"
	@echo "make setup    only make .venv, with everything a developer needs"
	@echo "make clean    remove .venv and what the tools left behind"

# What running takes, and what developing takes on top: a visitor who types `make demo` waits for the first only.
$(VENV)/installed: pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (once, a minute or so) ..."
	@sh scripts/make-venv $(VENV)
	@$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "Adding what tests and checks need ..."
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(VENV)/installed-dev

demo: $(VENV)/installed
	@$(BIN)/p2pmail-tui --demo

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/installed-docs: $(VENV)/installed
	@$(PIP) install --constraint constraints.txt --editable '.[docs]'
	@touch $@

docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

bench: $(VENV)/installed-dev
	$(BIN)/python -m bench.run $(ARGS)

$(VENV)/installed-soak: $(VENV)/installed-dev
	@$(PIP) install --constraint constraints.txt --editable '.[dev,soak]'
	@touch $@

# At length: the simulated community on both cores, for an hour unless ARGS says otherwise (--seconds, --seed, --small),
# then LETTERS letters by real processes, a new seed each time, then each decoder's fuzzer for SECONDS.
soak: $(VENV)/installed-soak
	$(BIN)/python -m tests.simulation.soak $(ARGS)
	$(BIN)/python -m tests.real.journey.soak --letters $(LETTERS)
	$(BIN)/python -m tests.fuzz.run --seconds $(SECONDS)

# Some decoders: ARGS='request card'.
fuzz: $(VENV)/installed-soak
	$(BIN)/python -m tests.fuzz.run --seconds $(SECONDS) $(ARGS)

# Each changed limit of docs/protocol.md, and each small change to the modules that hold the promise, must make a test
# fail: an hour or two on one core.
mutants: $(VENV)/installed-dev
	$(if $(ARGS),,$(BIN)/python -m tests.mutants.limits)
	$(BIN)/python -m tests.mutants.run $(ARGS)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .fuzz
