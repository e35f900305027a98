# SPDX-License-Identifier: Apache-2.0
"""Targets from a detector: which of its detections is taken, and when."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dimp_ros.images.conversion import BadImage
from dimp_ros.images.stamps import stamp_ns
from dimp_ros.node.requests import BoxRefused, RequestRefused, Requests, Started
from dimp_ros.ros_utils.callbacks import LOG_PERIOD_SECONDS
from dimp_ros.ros_utils.text import shortened
from dimp_ros.tracker.result import TargetState

if TYPE_CHECKING:
    from builtin_interfaces.msg import Time
    from rclpy.impl.rcutils_logger import RcutilsLogger
    from vision_msgs.msg import Detection2D, Detection2DArray

    from dimp_ros.node.pipeline import Pipeline
    from dimp_ros.ros_utils.parameters import Settings

RULES = ("best_score", "nearest_center", "largest")

MAX_TRIALS = 16
"""So many detections of a message are tried, the best first, until one can be used."""


def score_of(detection: Detection2D, classes: Sequence[str]) -> float:
    """Return the best score of the hypotheses of a detection that are of one of ``classes`` (of any, if empty).

    Minus infinity if there is none; scores that are not finite do not count.
    """
    hypotheses = (result.hypothesis for result in detection.results)
    scores = [h.score for h in hypotheses if (not classes or h.class_id in classes) and math.isfinite(h.score)]
    return max(scores, default=-math.inf)


def ranked(
    detections: Sequence[Detection2D],
    *,
    classes: Sequence[str] = (),
    min_score: float = 0.0,
    rule: str = "best_score",
    center: tuple[float, float] = (0.0, 0.0),
) -> list[Detection2D]:
    """Return the detections that qualify, the one to follow first.

    :param classes: class ids that are wanted; empty for any. :param min_score: the least score that is wanted.
    :param rule: what comes first: the best score, the nearest to ``center`` (pixels), or the largest.
    :raises ValueError: for an unknown rule.
    """
    if rule not in RULES:
        raise ValueError(f"rule {rule!r} is unknown, use one of {', '.join(RULES)}")
    scored = [(score_of(detection, classes), detection) for detection in detections]
    wanted = [(score, one) for score, one in scored if score >= min_score and not _defect(one)]

    def merit(item: tuple[float, Detection2D]) -> float:
        score, one = item
        if rule == "largest":
            return float(one.bbox.size_x * one.bbox.size_y)
        if rule == "nearest_center":
            at = one.bbox.center.position
            return -math.hypot(at.x - center[0], at.y - center[1])
        return score

    return [one for _, one in sorted(wanted, key=merit, reverse=True)]


def _defect(detection: Detection2D) -> str:
    """Return why a detection can never be taken, whatever is wanted; empty if it can."""
    box = detection.bbox
    values = (box.center.position.x, box.center.position.y, box.size_x, box.size_y)
    if not all(map(math.isfinite, values)) or box.size_x <= 0 or box.size_y <= 0:
        shown = ", ".join(f"{value:g}" for value in values)
        return f"its bbox (cx, cy, w, h) = ({shown}) is not finite or has no extent"
    if not detection.results:
        return "it has no hypothesis: let the detector fill results with class_id and score"
    if not any(math.isfinite(result.hypothesis.score) for result in detection.results):
        return "its score is not finite"
    return ""


class DetectorInput:
    """Starts a target from the detections that come in, while there is none of that name, or it is LOST for a while.

    A target that is being followed is never replaced: the detector finds it, the tracker follows it. One that an
    operator has dropped does not come back by itself, see `Requests.drop_target`.
    """

    def __init__(self, pipeline: Pipeline, requests: Requests, settings: Settings, logger: RcutilsLogger) -> None:
        self._pipeline = pipeline
        self._requests = requests
        self._settings = settings
        self._logger = logger
        self._busy = threading.Lock()

    def receive(self, message: Detection2DArray) -> None:
        """Start a target from these detections, if one is wanted; while one is being started, others are skipped."""
        if not self._pipeline.enabled or not self._wanted() or not self._busy.acquire(blocking=False):
            return
        try:
            if started := self._start(message):
                self._logger.info(f"from a detection: {started.message}")
        except RequestRefused as error:
            self._warn(f"a detection is not taken: {error}")
        finally:
            self._busy.release()

    def _start(self, message: Detection2DArray) -> Started | None:
        """Start the best detection that can be used; None if none qualifies.

        :raises RequestRefused: why the first one that qualifies cannot be used, if none can.
        """
        name, refusal = self._settings["detector.target_id"], None
        for detection in self._candidates(message)[:MAX_TRIALS]:
            try:
                stamp = _stamp(message, detection)
                return self._requests.init_target(stamp, detection.bbox, False, name, self._wanted)
            except BoxRefused as error:
                refusal = refusal or error
        if refusal is not None:
            raise refusal
        if defects := list(filter(None, map(_defect, message.detections))):
            self._warn(f"{len(defects)} of {len(message.detections)} detections cannot be used: {defects[0]}")
        return None

    def _wanted(self) -> bool:
        """Return whether there is no target of the detector's name, or it is lost; and none is started or held."""
        name = self._settings["detector.target_id"]
        if self._requests.drops.detections_held or name in self._pipeline.starting:
            return False
        if name not in self._pipeline.targets:
            return True
        found = next((estimate for estimate in self._pipeline.estimates if estimate.target_id == name), None)
        if found is None or found.state is not TargetState.LOST or name in self._pipeline.late:
            return False
        # In the moment after it was taken it was not searched for yet.
        return found.frames_since_seen > 0 and found.seconds_since_seen >= self._settings["detector.lost_seconds"]

    def _candidates(self, message: Detection2DArray) -> list[Detection2D]:
        settings = self._settings
        rule = settings["detector.rule"]
        center = (0.0, 0.0)
        if rule == "nearest_center" and message.detections:
            try:
                picture = self._pipeline.open_image(self._requests.find(_stamp(message, message.detections[0])))
            except BadImage as error:
                raise RequestRefused(str(error)) from error
            center = (picture.width / 2, picture.height / 2)
        return ranked(
            message.detections,
            classes=settings["detector.classes"],
            min_score=settings["detector.min_score"],
            rule=rule,
            center=center,
        )

    def _warn(self, text: str) -> None:
        self._logger.warning(shortened(text), throttle_duration_sec=LOG_PERIOD_SECONDS)


def _stamp(message: Detection2DArray, detection: Detection2D) -> Time:
    """Return the stamp of the image of a detection: the array's, or the detection's own where that is zero."""
    stamp = message.header.stamp
    return stamp if stamp_ns(stamp) else detection.header.stamp
