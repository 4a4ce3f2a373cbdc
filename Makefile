# Every target makes .venv when it is missing or older than what it is made from. torch comes first and by its pinned version,
# so that a CPU build at hand (PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL) is taken and no GPU build is pulled.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Workers times threads must not exceed the cores: each test worker computes on one thread.
WORKERS ?= auto
# Each worker has a part of the files to itself, so that what the tests of a file share is made once, and takes over from slower ones.
IN_PARALLEL = -n $(WORKERS) --maxprocesses 4 --dist worksteal
export HF_HUB_DISABLE_TELEMETRY := 1
export WANDB_MODE := disabled

.PHONY: demo dashboard picture test test-slow survey test-browser test-lowest test-newest lint format bench wheel clean

demo: $(VENV)/.package
	$(BIN)/interp ablate --model interp-mini --task ioi --n-prompts 64 --ablation mean --seed 0 --out runs/demo-ioi
	$(BIN)/interp show runs/demo-ioi

dashboard: $(VENV)/.package
	$(PIP) -e '.[app]'
	$(BIN)/interp dashboard

# The pictures in the README and in docs/.
picture: demo $(VENV)/.tools
	mkdir -p docs/images
	cp runs/demo-ioi/ranking.png docs/images/ioi-heads.png
	$(BIN)/interp attention --model interp-mini --task induction --metrics induction_score --out runs/demo-induction
	$(BIN)/interp show runs/demo-induction --kind layers --figure docs/images/induction-heads.png
	$(BIN)/python docs/take_pictures.py

test: $(VENV)/.tools
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(IN_PARALLEL)

test-slow: $(VENV)/.tools
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow $(IN_PARALLEL)

# Detectors on 50 to 100 models each, every family of models and the like: the counts in docs/validation.
survey: $(VENV)/.tools
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m survey $(IN_PARALLEL)

# Debian's Chromium, driven by Playwright's Python package; `CHROMIUM` names another one.
test-browser: $(VENV)/.tools
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "browser and not survey" tests/browser

# Tests with the lowest versions that pyproject.toml allows, and with the newest that exist, each in an environment of its own:
# all quick tests, or those of TESTS. uv resolves them; both take the CUDA build of torch where PyPI has no other (6 GB each).
TESTS ?=
test-lowest: RESOLUTION := lowest-direct
test-newest: RESOLUTION := highest
test-lowest test-newest: OTHER = .venv-$(RESOLUTION)
test-lowest test-newest:
	$(PYTHON) -m venv $(OTHER)
	$(OTHER)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(OTHER)/bin/uv pip compile --quiet --resolution $(RESOLUTION) --extra app --extra test pyproject.toml -o $(OTHER)/requirements.txt
	$(OTHER)/bin/uv pip install --quiet --python $(OTHER)/bin/python -r $(OTHER)/requirements.txt
	$(OTHER)/bin/uv pip install --quiet --python $(OTHER)/bin/python --no-deps -e .
	OMP_NUM_THREADS=1 $(OTHER)/bin/python -m pytest -q $(IN_PARALLEL) $(TESTS)

lint: $(VENV)/.tools
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.tools
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.tools
	for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

wheel: $(VENV)/.tools
	$(BIN)/python -m build --no-isolation --wheel

clean:
	rm -rf $(VENV) .venv-* build dist

# The package as a user has it.
$(VENV)/.package: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "interp needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) -e .
	touch $@

# What the tests and checks need besides.
$(VENV)/.tools: $(VENV)/.package
	$(PIP) -e '.[app,test,dev]'
	touch $@
