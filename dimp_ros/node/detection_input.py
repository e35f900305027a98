# SPDX-License-Identifier: Apache-2.0
"""Targets from a detector: which of its detections is taken, and when."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dimp_ros.images.conversion import BadImage
from dimp_ros.node.requests import RequestRefused, Requests
from dimp_ros.tracker.result import TargetState

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger
    from vision_msgs.msg import Detection2D, Detection2DArray

    from dimp_ros.node.pipeline import Pipeline
    from dimp_ros.ros_utils.parameters import Settings

LOG_PERIOD_SECONDS = 5.0

RULES = ("best_score", "nearest_center", "largest")


def score_of(detection: Detection2D, classes: Sequence[str]) -> float:
    """Return the best score of the hypotheses of a detection that are of one of ``classes`` (of any, if empty).

    Minus infinity if there is none, and where a score is not a number.
    """
    hypotheses = (result.hypothesis for result in detection.results)
    scores = [h.score for h in hypotheses if (not classes or h.class_id in classes) and math.isfinite(h.score)]
    return max(scores, default=-math.inf)


def choose(
    detections: Sequence[Detection2D],
    *,
    classes: Sequence[str] = (),
    min_score: float = 0.0,
    rule: str = "best_score",
    center: tuple[float, float] = (0.0, 0.0),
) -> Detection2D | None:
    """Return the detection to follow, or None if none qualifies.

    :param classes: class ids that are wanted; empty for any. :param min_score: the least score that is wanted.
    :param rule: of those the one with the best score, the one nearest to ``center`` (pixels), or the largest.
    :raises ValueError: for an unknown rule.
    """
    if rule not in RULES:
        raise ValueError(f"rule {rule!r} is unknown, use one of {', '.join(RULES)}")
    scored = [(score_of(detection, classes), detection) for detection in detections]
    wanted = [(score, one) for score, one in scored if score >= min_score and _is_box(one)]
    if not wanted:
        return None

    def merit(item: tuple[float, Detection2D]) -> float:
        score, one = item
        if rule == "largest":
            return float(one.bbox.size_x * one.bbox.size_y)
        if rule == "nearest_center":
            at = one.bbox.center.position
            return -math.hypot(at.x - center[0], at.y - center[1])
        return score

    return max(wanted, key=merit)[1]


def _is_box(detection: Detection2D) -> bool:
    """Tell whether a detection has a box with an extent, all of it numbers."""
    box = detection.bbox
    values = (box.center.position.x, box.center.position.y, box.size_x, box.size_y)
    return all(math.isfinite(value) for value in values) and box.size_x > 0 and box.size_y > 0


class DetectorInput:
    """Takes a target from the detections that come in, while there is none of that name or it is LOST.

    A target that is being followed is never replaced: the detector finds it, the tracker follows it.
    """

    def __init__(self, pipeline: Pipeline, requests: Requests, settings: Settings, logger: RcutilsLogger) -> None:
        self._pipeline = pipeline
        self._requests = requests
        self._settings = settings
        self._logger = logger
        self._busy = threading.Lock()

    def receive(self, message: Detection2DArray) -> None:
        """Take a target from these detections, if one is wanted; requests in the meantime are passed over."""
        if not self._pipeline.enabled or not self._wanted() or not self._busy.acquire(blocking=False):
            return
        try:
            if (chosen := self._choose(message)) is not None:
                name = self._settings["detector.target_id"]
                started = self._requests.init_target(message.header.stamp, chosen.bbox, False, name)
                self._logger.info(f"from a detection: {started.message}")
        except RequestRefused as error:
            self._logger.warning(f"a detection is not taken: {error}", throttle_duration_sec=LOG_PERIOD_SECONDS)
        finally:
            self._busy.release()

    def _wanted(self) -> bool:
        """Tell whether there is no target of the detector's name, or it is lost."""
        name = self._settings["detector.target_id"]
        if name not in self._pipeline.targets:
            return True
        found = next((estimate for estimate in self._pipeline.estimates if estimate.target_id == name), None)
        looked_for = found is not None and found.frames_since_seen > 0  # not so in the moment after it was taken
        lost = looked_for and found is not None and found.state is TargetState.LOST
        return lost and name not in self._pipeline.late

    def _choose(self, message: Detection2DArray) -> Detection2D | None:
        settings = self._settings
        rule = settings["detector.rule"]
        center = (0.0, 0.0)
        if rule == "nearest_center" and message.detections:
            try:
                picture = self._pipeline.open_image(self._requests.find(message.header.stamp))
            except BadImage as error:
                raise RequestRefused(str(error)) from error
            center = (picture.width / 2, picture.height / 2)
        return choose(
            message.detections,
            classes=settings["detector.classes"],
            min_score=settings["detector.min_score"],
            rule=rule,
            center=center,
        )
