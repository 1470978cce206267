# Everything a developer types. `make up` needs git, make and Python 3.11 or newer with venv, nothing else.

PYTHON ?= python3
VENV := .venv
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help up

help:  ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up:  ## Set up what is missing and start LLMOS: make up ARGS="--port 8100"
	@exec $(PYTHON) tools/bootstrap.py $(ARGS)
