# SPDX-License-Identifier: Apache-2.0
"""The commands that an installation has: each is imported only when it runs, so that Ctrl-C ends it from the start."""

from __future__ import annotations

from dimp_ros.files.program import start


def track() -> int:
    """Run ``dimp-track``."""
    return start("dimp_ros.apps.track.cli")


def train() -> int:
    """Run ``dimp-train``."""
    return start("dimp_ros.training.cli")


def evaluate() -> int:
    """Run ``dimp-eval``."""
    return start("dimp_ros.evaluation.cli")


def convert() -> int:
    """Run ``dimp-convert``."""
    return start("dimp_ros.model.checkpoints.convert_cli")


def export() -> int:
    """Run ``dimp-export``."""
    return start("dimp_ros.apps.export.cli")
