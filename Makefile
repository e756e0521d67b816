# From a fresh clone: `make demo`, `make test`. Needs Python 3.11+, a C compiler and make; the rest goes into .venv.

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
BUILD  ?= build
PREFIX ?= /usr/local
ASAN_TESTS ?= tests

STUDY   = unrolled long_gap gradients many_to_one speech many_to_many one_to_many translate forecast visualize precision \
          odyssey

BIN     = $(VENV)/bin
C_FILES = $(wildcard csrc/*.h csrc/*/*.[ch] csrc/*/*/*.h)
SOURCES = setup.py pyproject.toml MANIFEST.in $(C_FILES) $(wildcard fastrnn/*.pyx fastrnn/_binding/*.pxi)

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_NO_INPUT = 1

.DEFAULT_GOAL = help
.DELETE_ON_ERROR:
.PHONY: help demo study test notebooks fuzz mutants models asan tsan lint format wheel bench bench-peers bench-network bench-quantized bench-company build install clean FORCE

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'
	@echo
	@echo '  ARGS="..."           goes to the command: make test ARGS="-k gradient -x"'
	@echo '  CC=clang             builds with that compiler: make test CC=clang'
	@echo '  PYTHON=python3.13    the Python that .venv is made from'

demo: $(VENV)/installed ## train a small character-level language model
	@$(BIN)/python examples/char_lm.py $(ARGS)

study: $(VENV)/extras ## all examples of docs/study.md, with their figures, into build/study (about 40 minutes)
	@set -e; for name in $(STUDY); do echo "examples/$$name.py"; $(BIN)/python examples/$$name.py $(ARGS); done

test: $(VENV)/extras ## run the tests (a quarter of an hour; ARGS="-k lstm -x": a part)
	@echo "about a quarter of an hour on two cores; a part: make test ARGS='-k lstm -x'"
	@$(BIN)/python -m pytest -q tests $(ARGS)

.PHONY: docs # there is a folder of that name
docs: $(VENV)/docs ## the site, into build/docs/index.html (half a minute; ARGS="-b linkcheck" checks links to other sites)
	@$(BIN)/python -m sphinx -q -W --keep-going $(ARGS) docs $(BUILD)/docs
	@echo "$(BUILD)/docs/index.html"

notebooks: $(VENV)/extras $(VENV)/notebooks ## the examples of docs/study.md as Jupyter notebooks, into build/notebooks (ARGS=--execute: with results)
	@$(BIN)/python tools/notebooks.py $(ARGS)

fuzz: $(VENV)/extras ## the tests with drawn arguments, at random and 40 times as many cases (an hour and more)
	@FASTRNN_FUZZ=40 $(BIN)/python -m pytest -q tests -m hypothesis $(ARGS)

mutants: $(VENV)/extras ## small mistakes put into the sources, one at a time: would the tests notice? (an hour; ARGS=--list)
	@$(BIN)/python tools/mutants.py $(ARGS)

models: $(VENV)/installed ## examples/models beside their packages' own runtimes, into docs/models.md (minutes; downloads; ARGS="NAME ...")
	@$(BIN)/python tools/models.py $(ARGS)

lint: $(VENV)/lint ## what .ci/run has to say about style and types (seconds)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/clang-format --dry-run -Werror $(C_FILES) benchmarks/*.c examples/c/*.c tests/c/real_time.c
	@PATH="$(abspath $(BIN)):$$PATH" cython-lint fastrnn/_core.pyx fastrnn/_binding/*.pxi fastrnn/__init__.pxd tests/client/fastrnn_client.pyx
	@$(BIN)/mypy
	@$(BIN)/python -m mypy.stubtest fastrnn --allowlist .ci/stubtest-allowlist --mypy-config-file pyproject.toml

format: $(VENV)/lint ## lay Python and C out as `make lint` wants it
	@$(BIN)/ruff check -q --fix . || true
	@$(BIN)/ruff format .
	@$(BIN)/clang-format -i $(C_FILES) benchmarks/*.c examples/c/*.c tests/c/real_time.c

wheel: $(VENV)/wheel ## a wheel for every CPython here, repaired and tested in a fresh environment, into build/wheels (long)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tools/wheels.py $(ARGS)

# Left out is what looks at the memory of the process or stands in for malloc, as the sanitizer does; what measures time;
# and the largest sizes with the generic kernels, which would take longer than all the rest. With libasan comes libstdc++,
# because otherwise libasan would not find the exceptions of other packages.
asan: $(BUILD)/asan/built ## the tests with gcc's AddressSanitizer and UndefinedBehaviorSanitizer (most of an hour)
	@cd $(BUILD)/asan && LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so.6)" ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
		PYTHONPATH=$(abspath $(BUILD)/asan/lib) $(abspath $(BIN))/python -m pytest -q $(addprefix $(CURDIR)/,$(ASAN_TESTS)) \
		--deselect tests/test_faults.py::test_each_allocation_may_fail \
		--deselect tests/test_faults.py::test_memory_is_flat \
		--ignore $(CURDIR)/tests/test_benchmarks.py --ignore $(CURDIR)/tests/test_models.py --ignore $(CURDIR)/tests/test_coexistence.py -k "not (test_contract and generic)" $(ARGS)
	@set -e; for source in examples/c/stream.c examples/c/training.c tests/processors.c; do \
		program=$(BUILD)/asan/$$(basename $$source .c); echo "$$source"; \
		gcc -fsanitize=address,undefined -fno-sanitize-recover=undefined $(C_FLAGS) $$source $(BUILD)/asan/temp.*/csrc/*/*.o -lm -o $$program; \
		$$program > /dev/null; done

tsan: $(BUILD)/tsan/team_threads ## the threads of a call with clang's ThreadSanitizer
	@$<

bench: $(VENV)/installed ## beside the NumPy reference and the limits of the machine, and how it scales (minutes; ARGS=--quick: ten seconds)
	@$(BIN)/python benchmarks/suite.py --peers reference --scaling $(ARGS)

bench-peers: $(VENV)/installed $(VENV)/peers ## beside PyTorch, ONNX Runtime, OpenVINO (minutes; a large download first)
	@$(BIN)/python benchmarks/suite.py $(ARGS)

bench-network: $(VENV)/installed $(VENV)/peers ## a whole training step beside PyTorch (minutes; a large download first)
	@$(BIN)/python benchmarks/network.py $(ARGS)

bench-quantized: $(VENV)/installed $(VENV)/peers ## layers of fewer bits beside other libraries (minutes; a large download first)
	@$(BIN)/python benchmarks/quantization_speed.py $(ARGS)

bench-company: $(VENV)/installed $(VENV)/peers ## beside NumPy, threads, processes and other libraries (minutes; a large download first)
	@$(BIN)/python benchmarks/company.py $(ARGS)

build: $(VENV)/installed ## build the extension and install the package, editable, into .venv

install: ## the C library, without Python: PREFIX=/usr/local DESTDIR=... (needs cmake)
	@cmake -S . -B $(BUILD)/c -DCMAKE_INSTALL_PREFIX=$(abspath $(PREFIX))
	@cmake --build $(BUILD)/c --parallel
	@DESTDIR=$(DESTDIR) cmake --install $(BUILD)/c

clean: ## remove everything that was built, .venv included
	@rm -rf $(BUILD) build dist .venv $(VENV) fastrnn.egg-info .pytest_cache .hypothesis .benchmarks .mypy_cache .ruff_cache
	@rm -rf docs/sources docs/reference/generated
	@rm -f fastrnn/_core.c fastrnn/_core*.so
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment with the build requirements in it, named once, in pyproject.toml.
$(VENV)/ready: pyproject.toml
	@command -v $(PYTHON) > /dev/null || { echo "error: '$(PYTHON)' was not found; Python 3.11 or newer is needed (make PYTHON=...)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1) (make PYTHON=...)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { echo "error: $(PYTHON) lacks the venv module (Debian, Ubuntu: install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || { echo "error: $(PYTHON) lacks its C headers (Debian, Ubuntu: install python3-dev)" >&2; exit 1; }
	@command -v $(CC) > /dev/null || { echo "error: no C compiler: '$(CC)' was not found (install gcc, or make CC=...)" >&2; exit 1; }
	@echo "making $(VENV)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' > $(VENV)/requires.txt
	@$(BIN)/pip install -q -r $(VENV)/requires.txt
	@touch $@

# Its time changes only when the compiler does, so that another CC builds again.
$(VENV)/compiler: FORCE | $(VENV)/ready
	@echo '$(CC) $(CFLAGS)' | cmp -s - $@ || echo '$(CC) $(CFLAGS)' > $@

$(VENV)/installed: $(VENV)/ready $(VENV)/compiler $(SOURCES)
	@echo "building fastrnn"
	@$(BIN)/pip install -q --no-build-isolation --editable '.[demo,bench]'
	@touch $@

$(VENV)/extras: $(VENV)/installed
	@echo "installing what the tests and the study need"
	@$(BIN)/pip install -q 'fastrnn[test]'
	@touch $@

# By their requirements, which builds nothing.
$(VENV)/lint $(VENV)/wheel $(VENV)/docs $(VENV)/notebooks: $(VENV)/%: pyproject.toml | $(VENV)/installed
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["$*"], sep="\n")' > $(VENV)/requires.txt
	@$(BIN)/pip install -q -r $(VENV)/requires.txt
	@touch $@

# As the extension is, but for -O1, which is enough and takes a fifth of the time, assertions, and line numbers.
$(BUILD)/asan/built: $(SOURCES) $(wildcard fastrnn/*.py fastrnn/*/*.py) | $(VENV)/extras
	@echo "building fastrnn with sanitizers"
	@CC="gcc -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer" \
		CFLAGS="-O1 -g1 -UNDEBUG" $(BIN)/python setup.py -q build --build-base $(BUILD)/asan --build-lib $(BUILD)/asan/lib
	@touch $@

TEAM_THREADS = tests/c/team_threads.c $(filter-out csrc/layer/sequence.c,$(wildcard csrc/*/*.c))
C_FLAGS      = -O1 -g1 -std=c11 -ffp-contract=off -pthread -Wall -Wextra -Icsrc

$(BUILD)/tsan/team_threads: $(TEAM_THREADS) $(C_FILES)
	@mkdir -p $(@D)
	@clang -fsanitize=thread $(C_FLAGS) $(TEAM_THREADS) -o $@ -lm

$(BUILD)/team_threads: $(TEAM_THREADS) $(C_FILES)
	@mkdir -p $(@D)
	@$(CC) $(C_FLAGS) $(TEAM_THREADS) -o $@ -lm

# By their requirements, as above.
$(VENV)/peers: pyproject.toml | $(VENV)/installed
	@echo "installing PyTorch, ONNX Runtime, OpenVINO, scikit-learn and matplotlib"
	@$(BIN)/python -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; print(*extras["peers"], *extras["plots"], sep="\n")' > $(VENV)/requires.txt
	@$(BIN)/pip install -q -r $(VENV)/requires.txt
	@touch $@
