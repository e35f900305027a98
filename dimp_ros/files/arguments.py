# SPDX-License-Identifier: Apache-2.0
"""Numbers of command lines: argparse takes ``nan``, and counts of 0 or less, where none of them makes sense."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable


def whole(least: int = 1) -> Callable[[str], int]:
    """Return what reads a whole number of at least ``least``, for argparse."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
        return value

    return read


def number(least: float = 0.0, most: float = sys.float_info.max, *, above: bool = False) -> Callable[[str], float]:
    """Return what reads a number from ``least``, or ``above`` it, to ``most``, for argparse."""
    bounds = f"{'above' if above else 'of at least'} {least:g}" + (f" and at most {most:g}" if most <= 1e9 else "")

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most or (above and value == least):
            raise argparse.ArgumentTypeError(f"expected a number {bounds}, got {text!r}")
        return value

    return read
