# make demo and make shop are the first things to try; make test and make check are what a change must pass.
VENV ?= .venv
PYTHON ?= python3
DEMO_HOME ?= .demo
SHOP_HOME ?= .shop
PORT ?= 8080
WORK ?= .bench
SCREENSHOTS ?= build/screenshots
SECONDS ?= 3600
WORDNET ?= /usr/share/wordnet
PACKAGES ?= .packages
DICTIONARIES ?= /usr/share/dictd
DING ?= /usr/share/trans/de-en
STAMPS ?= /usr/share/tuxpaint/stamps
PIP = $(@D)/bin/python -m pip install --quiet --disable-pip-version-check
# As pip does for what it installs: where PYTHONDONTWRITEBYTECODE is set, every start would compile our sources anew.
COMPILE = $(@D)/bin/python -m compileall -q mmsearch indexer

.PHONY: demo shop test check test-extras bench soak model model-sound model-multilingual card packages

demo: $(VENV)/.installed ## index the sample in data/ and search it by words, by picture and by sound
	sh data/demo.sh $(VENV)/bin/mmsearch $(DEMO_HOME)

shop: $(VENV)/.installed-shop ## serve the products of data/products.csv, or of DATA=feed, and open the storefront
	sh data/shop.sh $(VENV)/bin $(SHOP_HOME) "$(or $(DATA),data/products.csv)" $(PORT)

test: $(VENV)/.installed-dev ## the tests of the base install
	SCREENSHOTS=$(abspath $(SCREENSHOTS)) $(VENV)/bin/python -m pytest

check: $(VENV)/.installed-dev ## style, types and house rules
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest -q tests/unit/test_house.py

test-extras: $(VENV)-extras/.installed-extras ## the tests that need torch, the voice extra or many packages; they have an environment of their own
	$(VENV)-extras/bin/python -m pytest tests/extras

bench: $(VENV)/.installed-dev ## the figures of benchmarks/README.md: make bench DATA=folder
	@test -n "$(DATA)" || { echo "make bench DATA=folder: which data folder? see benchmarks/README.md" >&2; exit 2; }
	$(VENV)/bin/python -m benchmarks $(DATA) $(WORK)

soak: $(VENV)/.installed-dev ## a server under load, watched for SECONDS: make soak SECONDS=600, or with DATA=folder
	$(VENV)/bin/python -m benchmarks.shop_soak $(WORK) $(if $(DATA),--data $(DATA)) --seconds $(SECONDS)

model: $(VENV)-extras/.installed-extras ## rebuild the built-in model: make model DATA=folder
	@test -n "$(DATA)" || { echo "make model DATA=folder: which data folder? see docs/models.md" >&2; exit 2; }
	$(VENV)-extras/bin/python -m mmsearch.training.mini --data $(DATA) --wordnet $(WORDNET) --out mmsearch/models/mini
	$(MAKE) model-sound
	$(MAKE) model-multilingual
	$(MAKE) card

model-sound: $(VENV)-extras/.installed-extras packages ## train the sound tower and add it to the built-in model
	@test -n "$(DATA)" || { echo "make model-sound DATA=folder: which data folder? see docs/models.md" >&2; exit 2; }
	$(VENV)-extras/bin/python -m mmsearch.training.mini_audio --model mmsearch/models/mini --data $(DATA) \
		--packages $(PACKAGES) --cache $(PACKAGES)/.cache

packages: $(VENV)-extras/.installed-extras ## fetch and unpack the Debian packages with the recordings it learns from and is judged by (5 GB)
	@mkdir -p $(PACKAGES)
	@cd $(PACKAGES) && for name in $$($(abspath $(VENV)-extras/bin/python) -m mmsearch.training.sounds); do \
		test -d $$name || { echo $$name && apt-get download -q $$name && dpkg -x $${name}_*.deb $$name.part && \
		mv $$name.part $$name && rm $${name}_*.deb; } || exit 1; done

model-multilingual: $(VENV)-extras/.installed-extras ## rebuild the head that reads other languages, for the mini that is there
	@test -n "$(DATA)" || { echo "make $@ DATA=folder: which data folder? see docs/models.md" >&2; exit 2; }
	$(VENV)-extras/bin/python -m mmsearch.training.mini_multilingual --data $(DATA) --wordnet $(WORDNET) \
		--dictionaries $(DICTIONARIES) --ding $(DING) --stamps $(STAMPS) $(if $(EMOJI),--emoji $(EMOJI)) \
		$(if $(CACHE),--cache $(CACHE)) \
		--out mmsearch/models/mini-multilingual

card: $(VENV)-extras/.installed-extras packages ## write the figures of the built-in model's card
	@test -n "$(DATA)" || { echo "make card DATA=folder: which data folder? see docs/models.md" >&2; exit 2; }
	$(VENV)-extras/bin/python -m mmsearch.training.mini_card --model mmsearch/models/mini --data $(DATA) --packages $(PACKAGES)

# An environment is made once and brought up to date when pyproject.toml changes. The install is editable.
.PRECIOUS: %/bin/python
%/bin/python:
	@echo "making $* and installing into it: a minute or two"
	$(PYTHON) -m venv $*

%/.installed: pyproject.toml | %/bin/python
	$(PIP) --editable .
	@$(COMPILE)
	@touch $@

%/.installed-shop: pyproject.toml | %/bin/python
	$(PIP) --editable ".[parquet,server,shop]"
	@$(COMPILE)
	@touch $@ $*/.installed

%/.installed-dev: pyproject.toml | %/bin/python
	$(PIP) --editable ".[dev]"
	@$(COMPILE)
	@touch $@ $*/.installed

%/.installed-extras: pyproject.toml | %/bin/python
	$(PIP) torch==2.13.0 --editable ".[dev,clip,multilingual,train,voice]"
	@touch $@
