# make book: build the book into _build/html.   make test: run every notebook, and every test but the slow.
# Both make and use .venv. CMRSEG_DATA chooses the slices: phantom (default), acdc96, or a folder.

SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# A folder's name may hold blanks, at which make's own functions would cut it; value leaves its dollars alone.
empty :=
ifneq ($(filter-out phantom acdc96 /%,$(subst $(empty) $(empty),_,$(value CMRSEG_DATA))),)
override CMRSEG_DATA := $(CURDIR)/$(value CMRSEG_DATA)
endif
export CMRSEG_DATA
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 1000
BIN := .venv/bin

.PHONY: help book test check test-all test-colab bench data results pairs address clean
help:
	@sed -n '1,2s/^# //p' Makefile

# It holds the path it was made for: programs of an environment name it, so that in a checkout which was moved or copied
# they would run the code of another place. Then it is made anew.
ifneq ($(shell cat .venv/ready 2>/dev/null),$(CURDIR))
.PHONY: .venv/ready
endif
.venv/ready: requirements.txt pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=path")'
	@[ "$$(cat $@ 2>/dev/null)" = "$$(pwd -P)" ] || ! { [ -s $@ ] || [ -L .venv ]; } || rm -rf .venv
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@mkdir -p .venv/etc/ipython && echo 'c.IPKernelApp.log_level = "ERROR"' > .venv/etc/ipython/ipython_kernel_config.py
	@pwd -P > $@

book: .venv/ready
	$(BIN)/python tools/prepare.py
	$(BIN)/python $(BIN)/jupyter-book build . -W --all --keep-going

test: .venv/ready
	CMRSEG_BUDGET=smoke OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests --nbmake notebooks

# style only: what a machine can say about code without running it
check: .venv/ready
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check

test-all: .venv/ready
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-cluster.txt
	CMRSEG_BUDGET=smoke OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m '' tests --nbmake notebooks

test-colab: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/book/test_colab.py

# On the real slices: CMRSEG_DATA, or what make data fetched, or what lies beside. Nothing else should run meanwhile:
# a second trial under way (it holds the lock) is paused, and goes on afterwards, also when this is interrupted.
BENCH_DATA = $(or $(if $(wildcard data/acdc96),acdc96),$(wildcard ../shared/data/acdc96),acdc96)
# There threads wait as each library likes: those that soon sleep, as above, wake slowly.
bench: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-bench.txt
	@trial=$$(cat runs/second/pid 2>/dev/null) && ! flock -n runs/second/lock true && kill -STOP -- "-$$trial" \
	  && trap 'kill -CONT -- "-$$trial"' EXIT && trap 'exit 130' INT && trap 'exit 143' TERM; \
	env -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT $(BIN)/python benchmarks/time_to_dice.py --data "$${CMRSEG_DATA:-$(BENCH_DATA)}"

data: .venv/ready
	$(BIN)/python -m cmrseg data --source acdc96

results: .venv/ready
	$(BIN)/python -m cmrtrial results

pairs: .venv/ready
	$(BIN)/python tools/pairs.py

address: .venv/ready
	$(BIN)/python tools/address.py
	$(BIN)/python tools/pairs.py

clean:
	rm -rf _build .jupyter_cache .pytest_cache .hypothesis .ruff_cache
