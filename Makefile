# Needs GNU make and CPython 3.11 to 3.14 only; everything else comes from wheels. `make help` lists the targets.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help run test lint lock install install-test
MAKEFLAGS += --no-print-directory

VENV := .venv/bin/python
PORT ?= 8000
TALLYGATE_DATA ?= .tallygate

# The first interpreter that fits and can make virtual environments by itself, or else the first that fits.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(shell for with in 'import ensurepip, venv;' ''; do for name in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	"$$name" -c "$$with $(FITS)" >/dev/null 2>&1 && echo "$$name" && exit; done; done)

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'Variables: PORT=8000, TALLYGATE_DATA=.tallygate (of `make run`), PYTHON=<interpreter for a new .venv>, ARGS=<of pytest>.'

run: export PORT := $(PORT)
run: export TALLYGATE_DATA := $(TALLYGATE_DATA)
run: install ## Serve on 127.0.0.1:PORT with servers of its own, and everything it keeps in TALLYGATE_DATA.
	@exec $(VENV) -m manage run

test: install-test ## Run the whole suite on servers of its own; no internet.
	@exec env -u PYTHONDONTWRITEBYTECODE $(VENV) -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS) # many processes: none compiles twice

lint: install-test ## Check style and types.
	@$(VENV) -m ruff check .
	@$(VENV) -m mypy .

lock: ## Resolve the dependencies again (needs uv), with hashes and without naming any index.
	@command -v uv >/dev/null || { echo 'Locking needs uv (https://docs.astral.sh/uv/): install it first.' >&2; exit 1; }
	uv pip compile pyproject.toml --extra embedded --universal --generate-hashes --no-emit-index-url --no-header --no-annotate \
		--python-version 3.11 -o requirements.lock
	uv pip compile pyproject.toml --extra embedded --extra test -c requirements.lock --universal --generate-hashes --no-emit-index-url \
		--no-header --no-annotate --python-version 3.11 -o requirements-test.lock
	uv pip compile requirements-s3.in --universal --generate-hashes --no-emit-index-url --no-header --no-annotate \
		--python-version 3.11 -o requirements-s3.lock

install:
	@$(call with-python,requirements.lock)

install-test:
	@$(call with-python,requirements-test.lock requirements.lock)
	@$(call with-python,--into .venv-s3 requirements-s3.lock)

define with-python
python='$(PYTHON)'; \
if [ -z "$$python" ]; then echo 'Tallygate needs CPython 3.11 to 3.14, and none was found: install one, or name it with PYTHON=.' >&2; exit 1; fi; \
if ! command -v "$$python" >/dev/null; then echo "There is no interpreter $$python: name another one with PYTHON=." >&2; exit 1; fi; \
exec "$$python" -I embedded/install.py $(1)
endef
