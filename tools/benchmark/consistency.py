# SPDX-License-Identifier: Apache-2.0
"""Whether a device and a precision agree with the CPU in float32."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from benchmark.candidates import AS_RANDOM, ModelChoice
from benchmark.sequences import BenchmarkVideo
from dimp_ros.tracker import TrackerConfig

SCORES_WITHIN = 0.02
BOXES_WITHIN = 0.5


class Consistency(NamedTuple):
    """The largest differences over some frames: of scores as shares of the peak, of boxes in pixels."""

    scores: float
    boxes: float

    @property
    def good(self) -> bool:
        """Whether scores are within 2 % of the peak and boxes within half a pixel."""
        return self.scores <= SCORES_WITHIN and self.boxes <= BOXES_WITHIN


def consistency(choice: ModelChoice, video: BenchmarkVideo, frames: int = 20) -> Consistency:
    """Compare a model as chosen with itself on the CPU in float32, nothing being random.

    Both follow freely: what differs in one frame moves the window of the next.
    """
    loose = AS_RANDOM if choice.weights == "random" else {}
    config = TrackerConfig.deterministic(**loose)
    plain = ModelChoice(choice.model, torch.device("cpu"), weights=choice.weights)
    trackers = [one.tracker(config) for one in (plain, choice)]
    box = video.boxes(0, 1)[0]
    for tracker in trackers:
        tracker.init(video.frame(0), box)
    scores = boxes = 0.0
    for number in range(1, frames + 1):
        image = video.frame(number)
        expected, got = (tracker.update(image).last_box for tracker in trackers)
        maps = [tracker.inspect().scores for tracker in trackers]
        scores = max(scores, float(np.abs(maps[1] - maps[0]).max() / np.abs(maps[0]).max()))
        boxes = max(boxes, float(np.abs(np.subtract(got, expected)).max()))
    return Consistency(scores, boxes)
