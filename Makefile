# Everything a checkout needs: `make demo` shows it, `make test` proves it. Both set `.venv` up first, once.

PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && echo $$p && break; done)
PYTHON312 ?= python3.12
PROCESSES ?= 3
TORCH := torch==2.13.0
BIN := .venv/bin
PIP := -m pip --quiet --disable-pip-version-check
BENCHMARKS := aims hop hop_processor prefixes throughput pipeline speculation prediction placement quality
CLIENT_TESTS := $(wildcard tests/client tests/cli tests/test_plan.py tests/test_config.py)

.PHONY: demo test lint protos reference bench clean test-client unit
.DEFAULT_GOAL := test
.NOTPARALLEL:

demo: .venv/ready
	@$(BIN)/python -m swarm.cli.demo

# pytest speaks last, so that its summary is the last thing to be read. What starts Ray or namespaces runs by itself, behind the rest,
# and only the files that have such tests are read for it: all of them take 10 s and 300 MB more.
test: lint test-client unit

unit: .venv/ready
	@$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile -m "not chaos and not alone"
	@$(BIN)/python -m pytest -m alone $$(grep -rlE --include='test_*.py' 'mark\.(alone|hosts|ray)\b' tests | sort)

lint: .venv/ready
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# The client must work where torch and ray cannot be had; on 3.12 its tests run without them.
test-client: lint
	@if $(PYTHON312) -c '' 2>/dev/null; then $(MAKE) --no-print-directory client-on-312; \
	else echo "The client's tests on Python 3.12 are skipped: $(PYTHON312) does not run here."; fi

# Built from clean, because setuptools packs what an earlier build left behind. No pythonpath: what is installed is tested.
.PHONY: client-on-312
client-on-312: .venv-client/ready
	@rm -rf build
	@.venv-client/bin/python $(PIP) install --no-deps --force-reinstall .
	@.venv-client/bin/python -c 'import importlib.util as u; assert not u.find_spec("torch") and not u.find_spec("ray")'
	@.venv-client/bin/pytest -p no:cacheprovider -o pythonpath= $(CLIENT_TESTS)

protos: .venv/ready
	@$(BIN)/python -m swarm.wire.generate

reference: .venv/ready
	@$(BIN)/python -m swarm.cli.reference

bench: .venv/ready
	@for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done

# Runs add up in .chaos (or CHAOS=folder): N is how many faults of that SEED there shall be in the end.
N ?= 100
SEED ?= 1
CHAOS ?= .chaos
MINUTES ?= 100000
BREAK := PYTHONPATH=tests:tests/ray $(BIN)/python tests/chaos

# The thirty faults of `make test`, and a short soak.
.PHONY: chaos-short
chaos-short: .venv/ready
	@$(BIN)/python -m pytest -m chaos

chaos: .venv/ready
	@$(BREAK)/chaos.py --n $(N) --seed $(SEED) --folder $(CHAOS) --minutes $(MINUTES)

soak: .venv/ready
	@$(BREAK)/soak.py --minutes $(MINUTES) --folder $(CHAOS)

clean:
	rm -rf .venv .venv-client build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f swarm/model/native/*.so

# torch goes first and alone: a range in another package's wishes must never choose another build of it.
.venv/ready: pyproject.toml $(wildcard swarm/model/native/*.[ch])
	@if [ -z "$(PYTHON)" ]; then echo "swarm needs Python 3.11 or 3.12: install python3.11 and its venv module," \
		"or name one with \`make PYTHON=/path/to/python3.11\`." >&2; exit 1; fi
	@echo "Setting .venv up with $(PYTHON) (once; some minutes) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python $(PIP) install $(TORCH)
	@$(BIN)/python $(PIP) install --editable '.[dev]'
	@touch $@

.venv-client/ready: pyproject.toml
	@echo "Setting .venv-client up with $(PYTHON312) (once) ..."
	@$(PYTHON312) -m venv .venv-client
	@rm -rf build
	@.venv-client/bin/python $(PIP) install . 'pytest>=8' 'pytest-asyncio>=1' 'pytest-timeout>=2.4' 'hypothesis>=6.150' \
		'mistral-common==1.13.1'
	@touch $@
