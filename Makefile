# Everything that people and CI run. Each target makes its environment where there is none.
#
#   make quickstart   the whole pipeline on the embedded world: train, edit, export, verify
#   make test         the tests, with coverage
#   make check        lint, types, what the built package holds, and the documentation
#   make docs         the documentation as a site, in build/site
#   make prove        the long tier, environments without torch and with inspect_ai, and installing from scratch
#   make clean        remove what the others made, but not the environments
#
# For another build of torch: make test TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
CORE_VENV ?= .venv-core
INSPECT_VENV ?= .venv-inspect
TORCH_INDEX ?=
TORCH = torch==2.13.0
WORKERS ?= 2

BIN = $(VENV)/bin
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check -c constraints.txt
READY = $(VENV)/.ready
CORE_READY = $(CORE_VENV)/.ready
INSPECT_READY = $(INSPECT_VENV)/.ready
REQUIREMENTS = pyproject.toml setup.py constraints.txt

.DEFAULT_GOAL = help
.DELETE_ON_ERROR:
.PHONY: help venv quickstart test check lint wheel docs prove constraints clean

help:
	@sed -n 's/^#   //p' $(firstword $(MAKEFILE_LIST))

venv: $(READY)

# torch goes first: with TORCH_INDEX it alone comes from there, and what it needs from the usual index.
$(READY): $(REQUIREMENTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)) '$(TORCH)'
	$(BIN)/python $(PIP_INSTALL) -e '.[dev]'
	@touch $@

$(CORE_READY): $(REQUIREMENTS)
	test -x $(CORE_VENV)/bin/python || $(PYTHON) -m venv $(CORE_VENV)
	$(CORE_VENV)/bin/python $(PIP_INSTALL) -e '.[cpu]' pytest
	@touch $@

# inspect_ai asks for older versions of what others here need, and so has an environment of its own.
INSPECT_INSTALL = $(INSPECT_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-inspect.txt
$(INSPECT_READY): $(REQUIREMENTS) constraints-inspect.txt
	test -x $(INSPECT_VENV)/bin/python || $(PYTHON) -m venv $(INSPECT_VENV)
	$(INSPECT_INSTALL) $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)) '$(TORCH)'
	$(INSPECT_INSTALL) -e '.[cpu,edit,inspect]' pytest
	@touch $@

quickstart: $(READY)
	$(BIN)/prosocial run quickstart --out runs/quickstart

# One thread per worker: the models are tiny, and threads of two workers would fight for the cores.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile --cov --cov-report=term:skip-covered --cov-fail-under=85

check: lint wheel docs

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A left-over build/lib would bring deleted modules back into the wheel.
wheel: $(READY)
	rm -rf build && mkdir build
	$(BIN)/python -m build --outdir build/dist . > build/log 2>&1 || { cat build/log; exit 1; }
	$(BIN)/python .ci/check_wheel.py build/dist/*.whl

# The package under its import name is laid out anew: the reference is read from its sources, and links are not followed.
docs: $(READY)
	rm -rf build/docs build/site && mkdir -p build/docs && cp -rL .types/prosocial build/docs/
	$(BIN)/zensical build --strict --clean

prove: $(READY) $(CORE_READY) $(INSPECT_READY) quickstart wheel
	$(BIN)/pytest -m prove
	$(BIN)/python .ci/check_install.py build/dist/* --bundle runs/quickstart/bundle
	$(INSPECT_VENV)/bin/python -m pytest tests/evaluation/inspect_ai/test_inspect_ai.py
	PROSOCIAL_RUN=runs/quickstart $(CORE_VENV)/bin/python -m pytest -m core tests/cli/test_core_install.py

# After a change of the requirements: constraints.txt from a fresh environment with the newest versions.
constraints:
	rm -rf $(VENV)-fresh
	$(PYTHON) -m venv $(VENV)-fresh
	$(VENV)-fresh/bin/python -m pip install --quiet --upgrade pip setuptools
	$(VENV)-fresh/bin/python -m pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) '$(TORCH)' -e '.[dev]'
	{ sed -n '/^#/p' constraints.txt; \
	  $(VENV)-fresh/bin/python -m pip freeze --all --exclude-editable --exclude pip | sed 's/+cpu$$//'; } > constraints.new
	mv constraints.new constraints.txt
	rm -rf $(VENV)-fresh
	$(PYTHON) -m venv $(VENV)-fresh
	$(VENV)-fresh/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-fresh/bin/python -m pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) '$(TORCH)' -e '.[cpu,edit,inspect]' pytest
	{ sed -n '/^#/p' constraints-inspect.txt; \
	  $(VENV)-fresh/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > constraints.new
	mv constraints.new constraints-inspect.txt
	rm -rf $(VENV)-fresh

clean:
	rm -rf build dist runs .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage *.egg-info
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +
