# `make help` lists what there is. Only Python 3.11 or newer, git and make are needed to begin.

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
TEST_ARGS ?=
PURE := access batches commands domain images jobs placement registry webhooks wire

# make up PYTHON=python3.12: a chosen interpreter that is too old is an error, a default one gives way to a newer one.
export MAKE_CHOSE_PYTHON := $(PYTHON)

.DEFAULT_GOAL := help
.PHONY: help install install-run up down status test faults cover check check-ui format bench soak docs images site proto pins clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

install-run:
	@VENV=$(VENV) sh tools/install.sh run

install: ## set up .venv with everything: to run, to test, to develop
	@VENV=$(VENV) sh tools/install.sh dev

up: install-run ## start everything on this machine (options: make up ARGS="--detach")
	@$(BIN)/muster up $(ARGS)

down: install-run ## stop what `make up ARGS=--detach` started
	@$(BIN)/muster down $(ARGS)

status: install-run ## say what runs and where
	@$(BIN)/muster status $(ARGS)

test: install ## set up and run all tests (some of them: make test TEST_ARGS="tests/unit -k name")
	@sh tools/test_programs.sh
	@VENV=$(VENV) sh tools/fetch_validators.sh
	@$(BIN)/python -m pytest -n 2 --dist worksteal $(TEST_ARGS)

faults: install ## hurt a working fleet for ten minutes and see that nothing is lost (ARGS="--minutes 2 --jobs 2000 --seed 7")
	@$(BIN)/python -m tests.campaign $(ARGS)

cover: install ## every branch of the pure packages is tested
	@$(BIN)/python -m pytest -q $(PURE:%=tests/unit/%) tests/unit/test_ids.py tests/unit/test_errors.py \
		$(PURE:%=--cov=muster.%) --cov=muster.ids --cov=muster.errors --cov-branch \
		--cov-report=term-missing:skip-covered --cov-fail-under=100

check: install ## format, lint, types, imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check-ui: install ## types and words of the monitor (needs node)
	@$(BIN)/python ui/generate_vocabulary.py --check
	@command -v npm >/dev/null || { echo "The monitor's types need node and npm, which are not installed." >&2; exit 1; }
	@cd ui && npm ci --silent --no-audit --no-fund && npm run --silent check

format: install ## format and repair what can be repaired
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install ## measure the gateway, the queue and the links
	@$(BIN)/python -m bench $(ARGS)

soak: install ## faults and callers who leave, for minutes, and what they leave behind (ARGS="30")
	@$(BIN)/python -m bench.gateway --soak $(or $(ARGS),30)

docs: install ## write the generated parts of docs/ anew
	@$(BIN)/python -m docs.generate
	@$(BIN)/python -m docs.diagrams --write

images: install ## make the docs' pictures of the monitor anew, by the test that opens its pages
	@$(BIN)/python -m pytest -q tests/e2e/monitor/served/test_screenshots.py
	@mkdir -p docs/images && cp tests/artifacts/docs/*.png docs/images/

site: install ## the documentation as a web site under build/site
	@$(BIN)/zensical build --strict -f mkdocs.yml

proto: install ## write the python files of the gRPC service from its .proto
	@$(BIN)/python tools/proto.py

pins: install ## write requirements/constraints.txt from what .venv holds
	@$(BIN)/python tools/pins.py

clean: ## remove .venv and all caches; data directories stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist htmlcov .coverage*
	find src tests docs bench -name __pycache__ -type d -prune -exec rm -rf {} +
