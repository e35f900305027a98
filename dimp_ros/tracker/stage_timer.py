# SPDX-License-Identifier: Apache-2.0
"""Wall time of each stage of the tracker."""

from __future__ import annotations

import time


class StageTimer:
    """Measure the wall time of consecutive stages, in milliseconds."""

    now = staticmethod(time.perf_counter)
    """The clock, in seconds; the benchmark exchanges it."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self._last = self.now()

    def record(self, stage: str) -> None:
        """Add the time since the last call to ``stage``."""
        now = self.now()
        self.stages[stage] = self.stages.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now
