# make demo    set up and run the tutorial's app: web server, worker, embedded Valkey
# make test    set up and run all tests
# make lint types    what CI checks besides
# make messages    collect the texts of the pages for translation
# make bench    measure it beside other libraries, in about twelve minutes; see bench/README.md
#
# PYTHON=python3.12 make test    with another interpreter
# PORT=5050 make demo            on another port

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 5000
TESTS ?=
# In the folder of the example, from where its requirements name this project.
PIP = cd examples/tutorial && $(abspath $(BIN))/python -m pip install --quiet \
  --disable-pip-version-check

export PORT

.PHONY: demo test chaos bench lint types format messages clean

demo: $(VENV)/demo.stamp
	@exec $(BIN)/python examples/tutorial/demo.py

test: $(VENV)/dev.stamp
ifeq ($(TESTS),)
	$(BIN)/python -m pytest --numprocesses 4 --dist loadscope --ignore tests/chaos
	$(BIN)/python -m pytest tests/chaos
else
	$(BIN)/python -m pytest $(TESTS)
endif

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/dev.stamp
	$(BIN)/mypy
	$(BIN)/basedpyright

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

messages: $(VENV)/dev.stamp
	$(BIN)/pybabel extract --mapping-file pyproject.toml --keywords mark --no-wrap --add-location file \
	  --sort-by-file --project Flask-Offload --version '' --copyright-holder 'the authors' \
	  --output-file src/flask_offload/translations/flask_offload.pot src/flask_offload/_web

clean:
	rm -rf $(VENV) .venv-bench build dist

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Flask-Offload needs Python 3.11 or newer, and $(PYTHON) is older."; \
	  echo "Name another one: PYTHON=python3.12 make $(MAKECMDGOALS)"; exit 1; }
	@echo "Making a virtual environment in $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml examples/tutorial/requirements.txt | $(VENV)/bin/python
	@echo "Installing what the demo needs ..."
	@$(PIP) --requirement requirements.txt
	@touch $@

$(VENV)/dev.stamp: pyproject.toml tests/package-lock.json examples/tutorial/requirements.txt | $(VENV)/bin/python
	@echo "Installing what the tests need ..."
	@$(PIP) --editable '../..[dev]' --requirement requirements.txt
	@if command -v npm >/dev/null; then \
	  npm ci --prefix tests --silent --no-audit --no-fund \
	    || echo "axe-core could not be installed from npm; its tests are skipped." >&2; fi
	@touch $@

# What is promised, against faults: for each way to carry messages and each pool, some 70 minutes each
# with the soak of half an hour.
# CHAOS_SCALE=0.05 CHAOS_COLUMNS=ours:threads make chaos    a short one
chaos: export CHAOS_SCALE ?= 1
chaos: export CHAOS_COLUMNS ?= ours:prefork ours:threads stock:prefork
chaos: $(VENV)/dev.stamp
	@rm -f tests/chaos/.results.jsonl
	@$(BIN)/python -m pytest tests/chaos $(TESTS); status=$$?; \
	  $(BIN)/python tests/chaos/results.py; exit $$status

# Figures, side by side with other libraries, which are installed into .venv-bench.
# BENCH_LONG=1 make bench    all of them, in hours
# BENCH="--only enqueue --peers ours,huey" make bench    some; --help lists what there is
bench: $(VENV)/dev.stamp
	@$(BIN)/python -m bench.run $(BENCH)
