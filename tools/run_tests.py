# SPDX-License-Identifier: Apache-2.0
"""Runs pytest: many tests in two processes, and those of a named file in this one."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

PROCESSES = ("-n", "2", "--dist", "loadfile")
"""A file stays in one process, as its tests share what is slow to make."""


def options(args: Sequence[str], installed: bool) -> list[str]:
    """Return pytest's arguments.

    :param args: those given. :param installed: whether pytest-xdist is; a ROS distribution may have an older pytest.
    """
    named = any(Path(arg.partition("::")[0]).is_file() for arg in args if not arg.startswith("-"))
    alone = any(arg in ("--pdb", "-s", "--capture=no") or arg.startswith(("-n", "--numprocesses")) for arg in args)
    return [*args] if named or alone or not installed else [*PROCESSES, *args]


if __name__ == "__main__":
    sys.exit(pytest.main(options(sys.argv[1:], importlib.util.find_spec("xdist") is not None)))
