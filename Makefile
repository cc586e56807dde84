# What a newcomer needs: `make demo` and `make test`. Both set up all they need below .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
IMAGES ?=
WEIGHTS ?=
SEED ?= 0
ROUNDS ?= 10

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench wheels clean

help:  ## Show this list.
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(VENV)/.ready  ## Create the virtual environment and install fedpi into it.

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("fedpi needs Python 3.11 or later" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[broker,dev,inference,learning,tools]'
	touch $@

demo: setup  ## Run a federation here. IMAGES=folder WEIGHTS=file|imagenet SEED=n
	$(BIN)/python -m coordinator.rehearsal demo --seed $(SEED) \
	  $(if $(IMAGES),--images '$(IMAGES)') $(if $(WEIGHTS),--weights '$(WEIGHTS)')

test: setup  ## Run the tests. They start real brokers: Mosquitto is installed where it is missing.
	@command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || { \
	  echo "installing Mosquitto, which the tests run against"; \
	  $(if $(filter 0,$(shell id -u)),,sudo) apt-get update -qq && \
	  $(if $(filter 0,$(shell id -u)),,sudo) apt-get install -y -qq mosquitto; }
	$(BIN)/python -m pytest

check: setup  ## Lint, types, and who may import whom.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## Format the code.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup  ## Measure rounds beside a bare loop of paho, over Mosquitto.
	$(BIN)/python -m coordinator.rehearsal bench --rounds $(ROUNDS)

wheels: setup  ## Show that all requirements resolve to wheels for a Raspberry Pi.
	$(BIN)/python .ci/wheels.py

clean:  ## Remove what the other targets made.
	rm -rf $(VENV) build runs *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
