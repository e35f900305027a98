# SPDX-License-Identifier: Apache-2.0
"""Launch files as modules: only their ``generate_launch_description`` needs launch."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[2] / "launch"


def launch_file(name: str) -> ModuleType:
    """Return a launch file, like ``tracker.launch.py``, as a module."""
    spec = importlib.util.spec_from_file_location(name.replace(".", "_"), FOLDER / name)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
