# make reproduce   the main job: convert, uptrain, fine-tune, measure, report
# make test        the fast test suite
# Both first make a virtual environment of their own, .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
PRESET ?= default
OUTPUT ?= runs/reproduce/$(PRESET)
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
ORACLES = $(VENV)/.oracles

.PHONY: install test test-slow test-oracles test-t5x lint reproduce pretrain-mini clean

install: $(INSTALLED)

$(INSTALLED): setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q \
	  -c constraints.txt -e '.[test]'
	touch $@

test: $(INSTALLED)
	$(BIN)/python -m pytest -q -n auto

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -q -n auto -m slow

# Against live transformers: installs torch.
test-oracles: $(ORACLES)
	$(BIN)/python -m pytest -q -m oracle tests/oracles

# Against T5X, which is not on the package index: install it in .venv first.
test-t5x: $(INSTALLED)
	$(BIN)/python -m pytest -q -rs -m t5x

$(ORACLES): $(INSTALLED)
	$(BIN)/python -m pip install --disable-pip-version-check -q \
	  -c constraints.txt -e '.[test,oracles]'
	touch $@

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

reproduce: $(INSTALLED)
	$(BIN)/gqa-flax reproduce --preset=$(PRESET) --output=$(OUTPUT)

# What made gqa_flax/mini; goes on where it was stopped. The last line writes
# the checkpoint as it is shipped: bfloat16 parameters, float32 slots.
pretrain-mini: $(INSTALLED)
	$(BIN)/gqa-flax train --gin_file=runs/local/pretrain_mini.gin \
	  --output=runs/pretrain_mini
	$(BIN)/gqa-flax convert runs/pretrain_mini runs/mini --num_kv_heads=8 \
	  --dtype=bfloat16 --overwrite

clean:
	rm -rf $(VENV) build dist *.egg-info
