# The commands of developers and CI. Each target creates its environment if it does not exist.
#
#   make quickstart   run the whole pipeline on the lab's data: train, edit, export, verify
#   make test         run the tests of all folders, with coverage of all but recipes and cli
#   make check        lint, check types, check the contents of the wheel, build the documentation
#   make docs         build the documentation site in build/site
#   make prove        run the slow tests, those without torch and with inspect_ai, and install from scratch
#   make clean        delete what the other targets built, except the environments
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

# torch is installed first: with TORCH_INDEX, only torch comes from that index, its dependencies from the default one.
$(READY): $(REQUIREMENTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)) '$(TORCH)'
	$(BIN)/python $(PIP_INSTALL) -e '.[dev]'
	@touch $@

$(CORE_READY): $(REQUIREMENTS)
	test -x $(CORE_VENV)/bin/python || $(PYTHON) -m venv $(CORE_VENV)
	$(CORE_VENV)/bin/python $(PIP_INSTALL) -e '.[cpu]' pytest
	@touch $@

# inspect_ai requires older versions of shared dependencies, so it has an environment of its own.
INSPECT_INSTALL = $(INSPECT_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-inspect.txt
$(INSPECT_READY): $(REQUIREMENTS) constraints-inspect.txt
	test -x $(INSPECT_VENV)/bin/python || $(PYTHON) -m venv $(INSPECT_VENV)
	$(INSPECT_INSTALL) $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)) '$(TORCH)'
	$(INSPECT_INSTALL) -e '.[cpu,edit,inspect]' pytest
	@touch $@

# One thread, as the figures of README.md were drawn: threads decide the rounding, and so the trained weights.
quickstart: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/prosocial run quickstart --out runs/quickstart

# One thread per worker: the models are tiny, and threads of several workers would compete for the cores.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile --cov --cov-report=term:skip-covered --cov-fail-under=85

check: lint wheel docs

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A stale build/lib would add deleted modules to the wheel.
wheel: $(READY)
	rm -rf build && mkdir build
	$(BIN)/python -m build --outdir build/dist . > build/log 2>&1 || { cat build/log; exit 1; }
	$(BIN)/python .ci/check_wheel.py build/dist/*.whl

# The sources are copied under their import name: the reference is generated from them, and links are not followed.
docs: $(READY)
	rm -rf build/docs build/site && mkdir -p build/docs && cp -rL .types/prosocial build/docs/
	$(BIN)/zensical build --strict --clean

prove: $(READY) $(CORE_READY) $(INSPECT_READY) quickstart wheel
	$(BIN)/pytest -m prove
	$(BIN)/python .ci/check_install.py build/dist/* --bundle runs/quickstart/bundle
	$(INSPECT_VENV)/bin/python -m pytest tests/evaluation/inspect_ai/test_inspect_ai.py
	PROSOCIAL_RUN=runs/quickstart $(CORE_VENV)/bin/python -m pytest -m core tests/cli/test_core_install.py

# Run after a change of the requirements: writes constraints.txt from a fresh environment with the newest versions.
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
