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

# What `pip` would install on a 64-bit Raspberry Pi OS: wheels only, nothing is built there.
wheels: setup  ## Show that all requirements resolve to wheels for a Raspberry Pi.
	@for version in 3.11 3.13; do \
	  $(BIN)/pip install --quiet --dry-run --ignore-installed --target build/wheels --only-binary :all: \
	    --python-version $$version --implementation cp \
	    --platform manylinux2014_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux_2_28_aarch64 \
	    --platform manylinux_2_36_aarch64 --platform linux_aarch64 \
	    --report build/wheels-$$version.json \
	    $$($(BIN)/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; o = p["optional-dependencies"]; print(" ".join(repr(r).replace(" ", "") for r in p["dependencies"] + o["learning"] + o["inference"] + o["broker"] + o["tools"]))') \
	  && $(BIN)/python -c 'import json, sys; found = json.load(open(sys.argv[2]))["install"]; print(f"aarch64, Python {sys.argv[1]}: {len(found)} wheels, among them", ", ".join(f"{i[\"metadata\"][\"name\"]} {i[\"metadata\"][\"version\"]}" for i in found if i["requested"] if i.get("requested")))' $$version build/wheels-$$version.json || exit 1; \
	done

clean:  ## Remove what the other targets made.
	rm -rf $(VENV) build runs *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
