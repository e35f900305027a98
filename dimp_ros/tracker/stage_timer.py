# SPDX-License-Identifier: Apache-2.0
"""How long each stage of the tracker takes."""

from __future__ import annotations

import time


class StageTimer:
    """Measure the wall time of consecutive stages, in milliseconds."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self._last = time.perf_counter()

    def record(self, stage: str) -> None:
        """Book the time since the last lap on ``stage``."""
        now = time.perf_counter()
        self.stages[stage] = self.stages.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now
