# Every target says what it does in its `##` comment; `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup sweep figures train test test-slow test-cluster check format build clean crosscheck

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.ready

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Make .venv once (CPU build of torch where the registry has one)

# One resolver run with the constraints, so that nothing pulls another torch in.
$(STAMP): pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $(STAMP)

sweep: setup  ## Search the Pareto front of the embedded model: outputs/sweep/.../pareto.png
	$(BIN)/himap sweep sweeps=shapes_pareto

# In a folder of its own each time: new weights must not go on with the old ones' samples.
FIGURES := outputs/figures/$(shell date +%Y-%m-%d_%H-%M-%S)
ANALYZE := $(BIN)/himap analyze task.split=heldout task.limit=500

figures: setup  ## Draw Fig. 3 to 6 and the kept tokens of the embedded model: outputs/figures/.../*.png
	$(ANALYZE) experiment=fig3 hydra.run.dir=$(FIGURES)/fig3
	$(ANALYZE) experiment=fig5 hydra.run.dir=$(FIGURES)/fig5
	$(ANALYZE) experiment=fig6 hydra.run.dir=$(FIGURES)/fig6
	$(ANALYZE) analysis=kept hydra.run.dir=$(FIGURES)/kept

# lmms-eval pins packages that we do not, so it has an environment of its own. The torchvision that it pulls in
# need not fit torch's build, and without one it imports.
.venv-lmms/.ready: benchmarks/lmms_eval/requirements.txt constraints.txt
	$(PYTHON) -m venv .venv-lmms
	.venv-lmms/bin/python -m pip install -c constraints.txt -r benchmarks/lmms_eval/requirements.txt
	.venv-lmms/bin/python -m pip uninstall -y torchvision
	touch $@

crosscheck: setup .venv-lmms/.ready  ## Compare our scores with lmms-eval's: benchmarks/results/lmms_eval.json
	$(BIN)/python benchmarks/lmms_eval/crosscheck.py

train: setup  ## Train the embedded model again (an hour or two on two cores, minutes on a GPU)
	$(BIN)/himap train

test: setup  ## Run the tests (no network, GPU, account or Java needed)
	$(BIN)/python -m pytest -q

test-slow: setup  ## Run every test, the slow ones too
	$(BIN)/python -m pytest -q -m ''

test-cluster: setup  ## Kill, cancel and requeue workers on a real PostgreSQL and Slurm (Debian, root)
	$(BIN)/python tests/cluster/serve.py $(BIN)/python -m pytest -q -m cluster tests/cluster

check: setup  ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## Let ruff format and fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

build: setup  ## Build the wheel and the source archive into dist/
	$(BIN)/python -m build

clean:  ## Remove what building, testing and checking left (not .venv, not outputs)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
