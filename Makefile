# Everything a developer types. `make up` needs git, make and Python 3.11 or newer with venv, nothing else.

PYTHON ?= python3
VENV := .venv
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help up

help:  ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up:  ## Set up what is missing and start LLMOS: make up ARGS="--port 8100"
	@exec $(PYTHON) -I tools/bootstrap.py $(ARGS)

DEV = $(PYTHON) -I tools/bootstrap.py --lock dev --only-install
RUN := $(VENV)/bin
.PHONY: test test-browser test-kubernetes test-kubernetes-build bench lint format generate lock

test:  ## Set up what is missing and run the unit and integration tests
	@$(DEV)
	$(RUN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(ARGS)

test-browser:  ## The README's session in a real Chromium (installed by apt-get where it is missing)
	@$(DEV)
	@tests/browser/chromium.sh
	$(RUN)/python -m pytest tests/browser $(ARGS)

test-kubernetes:  ## A real Kubernetes cluster on this machine (root, Debian, Go; an hour the first time), or LLMOS_TEST_KUBECONFIG's
	@$(DEV)
	$(RUN)/python -m pytest tests/kubernetes tests/unit/helm --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-kubernetes-build:  ## What test-kubernetes would build first, without starting anything: its programs, addons and images
	@tests/kubernetes/cluster/build.sh
	@tests/kubernetes/cluster/addons/addons.sh --build csi netpol metrics
	@$(PYTHON) tests/kubernetes/images/build.py --no-import hub notebook engine-cpu hub-5

bench:  ## The figures of docs/benchmarks.md
	@$(DEV)
	$(RUN)/python -m tests.benchmarks $(ARGS)

lint:  ## ruff, mypy --strict, import-linter, and that generated files are up to date
	@$(DEV)
	$(RUN)/ruff check
	$(RUN)/ruff format --check
	$(RUN)/mypy
	$(RUN)/lint-imports
	$(RUN)/python -m tools.generate --check

format:  ## ruff's formatter and safe fixes
	@$(DEV)
	$(RUN)/ruff check --fix --exit-zero
	$(RUN)/ruff format

generate:  ## Write what is made from other code: the sync SDK, docs/reference, helm/llmos/crds, the chart's values and schema
	@$(DEV)
	$(RUN)/python -m tools.generate

lock:  ## Resolve requirements/*.txt again
	@$(DEV)
	@for extra in platform dev; do \
	    $(RUN)/uv pip compile --quiet --upgrade pyproject.toml --extra $$extra --extra setup --universal --python-version 3.11 \
	        --generate-hashes --no-header --no-annotate --output-file requirements/$$extra.txt \
	        $$([ $$extra = dev ] && echo --constraint requirements/platform.txt); \
	done
	@# what kernels run in, all of it and LLMOS' part; then what each image needs and no more; in the same versions
	@for pair in data:data kernel:kernel hub:hub notebook:server,data vscode:vscode,data engine:engine build:setup; do \
	    $(RUN)/uv pip compile --quiet --upgrade pyproject.toml $$(printf -- '--extra %s ' $$(echo $${pair#*:} | tr , ' ')) \
	        --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	        --output-file requirements/$${pair%:*}.txt --constraint requirements/dev.txt \
	        $$([ $$pair = data:data ] || echo --constraint requirements/data.txt); \
	done
	@echo "uv" | $(RUN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	    --generate-hashes --no-header --no-annotate --output-file requirements/bootstrap.txt -
