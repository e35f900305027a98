# SPDX-License-Identifier: Apache-2.0
# Everything runs in .venv and build/ of this checkout; `make clean` removes both. See `make help`.

PYTHON ?= python3
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-follow demo-servo test soak fuzz bench lint format footage clean

help: ## show this list
	@echo "make TARGET [ARGS='...'] [PYTHON=python3.11]"
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST)

setup: ## make .venv and build/ (the other targets do this by themselves)
	@$(PYTHON) tools/bootstrap.py

demo: ## track a real video over ROS 2 topics; results in build/demo/; ARGS="rate:=10 device:=cpu"
	@$(PYTHON) tools/bootstrap.py --footage
	@tools/env python tools/run_demo.py $(ARGS)

demo-follow: setup ## a simulated vehicle follows a target, which hides, and stops when the tracker dies; build/demo-follow/
	@tools/env python tools/run_loop_demo.py follow $(ARGS)

follow-picture: setup ## record the moving picture of the README, docs/images/follow.webp
	@tools/env python tools/record_follow.py

demo-servo: setup ## a simulated camera on an arm is kept over a part, likewise; build/demo-servo/
	@tools/env python tools/run_loop_demo.py servo $(ARGS)

test: setup ## run the tests; ARGS go to pytest, like ARGS="-k pooling"
	@tools/env python -m pytest $(ARGS)

soak: setup ## images and requests at a node for half an hour, and what it took; ARGS="--minutes 5"
	@tools/env python tools/run_soak.py $(ARGS)

fuzz: setup ## throw odd inputs at all that takes some; ARGS="--inputs 100000 --seed 1", or "--surface bags"
	@tools/env python tools/run_fuzz.py $(ARGS)

bench: setup ## where the time of a frame goes, against ceilings, a naive run and peers; ARGS="--ros": the node
	@tools/env python tools/run_benchmark.py $(ARGS)

lint: setup ## ruff (lint and format) and mypy
	@tools/env python -m ruff check --quiet .
	@tools/env python -m ruff format --check --quiet .
	@tools/env python -m mypy --no-error-summary
	@echo "[lint] ruff and mypy found nothing"

format: setup ## let ruff rewrite the sources
	@tools/env python -m ruff check --quiet --fix .
	@tools/env python -m ruff format .

footage: ## fetch the video of the demo, for `ros2 launch dimp_ros demo.launch.py`
	@$(PYTHON) tools/fetch_footage.py

clean: ## undo everything the other targets made
	@rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
	@echo "[clean] removed .venv, build/ and the caches"
