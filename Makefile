# SPDX-License-Identifier: Apache-2.0
# Everything runs in .venv and build/ of this checkout; `make clean` removes both. See `make help`.

PYTHON ?= python3
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-follow demo-drone demo-servo test soak fuzz bench follow-picture lint format footage clean

help: ## show this list
	@echo "make TARGET [ARGS='...'] [PYTHON=python3.11]"
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST)

setup: ## make .venv and build/ (the other targets do this by themselves)
	@$(PYTHON) tools/bootstrap.py

demo: ## track a target in a real video over ROS 2 topics; build/demo/; ARGS="rate:=10 device:=cpu"
	@$(PYTHON) tools/bootstrap.py --footage
	@tools/env python tools/run_demo.py $(ARGS)

demo-follow: setup ## a simulated robot follows a target that is hidden, and stops when the tracker is killed; build/demo-follow/
	@tools/env python tools/run_loop_demo.py follow $(ARGS)

demo-drone: setup ## a simulated drone follows by MAVLink: ground station, camera, autopilot; build/demo-drone/
	@tools/env python tools/run_drone_demo.py $(ARGS)

follow-picture: setup ## record the moving image of the README, docs/images/follow.webp
	@tools/env python tools/record_follow.py

demo-servo: setup ## a simulated camera on an arm is kept over a part; build/demo-servo/
	@tools/env python tools/run_loop_demo.py servo $(ARGS)

test: setup ## run the tests; ARGS go to pytest, like ARGS="-k pooling"
	@tools/env python tools/run_tests.py $(ARGS)

soak: setup ## a node under load for half an hour: memory, ages, answers; ARGS="--minutes 5"
	@tools/env python tools/run_soak.py $(ARGS)

fuzz: setup ## unexpected inputs to the parts that read them; ARGS="--inputs 100000 --seed 1", or "--surface bags"
	@tools/env python tools/run_fuzz.py $(ARGS)

bench: setup ## time of each stage, against the device's limits, a baseline and other trackers; ARGS="--ros": the node
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

clean: ## remove everything that the other targets made
	@rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
	@echo "[clean] removed .venv, build/ and the caches"
