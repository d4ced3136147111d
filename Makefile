# Every target does its own set-up on a fresh machine: venv, pinned install, links.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := store callbacks diagnostics dashboard cli
# The strict editable install links file by file (so that type checkers find `otoscope.…`),
# therefore a file that comes or goes makes the links anew.
SOURCES := $(shell find $(PACKAGES) -type f -not -name '*.pyc' 2>/dev/null | sort)
LISTING := $(shell printf '%s\n' $(SOURCES) | cksum | cut -d' ' -f1)

.PHONY: demo test check bench faults faults-quick peers format clean install link
.DEFAULT_GOAL := help

help:
	@echo "make demo    train a healthy and a faulty net, watch Otoscope name and mend the fault"
	@echo "make test    run every test"
	@echo "make check   ruff, format, pyright, import-linter"
	@echo "make bench   print the figures that the README names"
	@echo "make faults  the fault bench: what is found, what is said of healthy runs, what the advice mends"
	@echo "make faults-quick   a part of it, under three minutes, held to floors"
	@echo "make peers   other tools and their rules on the same runs"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch is pinned, and named first, so that pip takes the CPU build where one is at hand.
.make/installed: pyproject.toml constraints.txt | $(BIN)/python
	@mkdir -p .make
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch setuptools wheel
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt --no-build-isolation --config-settings editable_mode=strict -e '.[dev]'
	@rm -f .make/linked-*
	@touch $@ .make/linked-$(LISTING)

.make/linked-$(LISTING): | .make/installed
	@test -e $@ || flock .make/lock $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation --config-settings editable_mode=strict -e .
	@rm -f .make/linked-*
	@touch $@

install: .make/installed
link: .make/installed .make/linked-$(LISTING)

demo: link
	@$(BIN)/otoscope demo $(ARGS)

test: link
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

check: link
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: link
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: link
	$(BIN)/python -m benchmarks $(ARGS)

faults: link
	$(BIN)/python -m benchmarks.faults --full $(ARGS)

faults-quick: link
	$(BIN)/python -m benchmarks.faults --quick $(ARGS)

peers: link
	$(BIN)/python -m benchmarks.peers $(ARGS)

clean:
	rm -rf .make build dist *.egg-info .pytest_cache .ruff_cache
