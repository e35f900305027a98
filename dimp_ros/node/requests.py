# SPDX-License-Identifier: Apache-2.0
"""Requests of people, programs and detectors: checked here, served by the pipeline, answered with a reason."""

from __future__ import annotations

import itertools
import reprlib
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as RequestTimeout
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from builtin_interfaces.msg import Time

from dimp_ros.geometry.box import Box, check_box, check_point
from dimp_ros.images.conversion import BadImage
from dimp_ros.images.stamps import NANOSECONDS
from dimp_ros.node.catch_up import PendingReplay
from dimp_ros.node.image_buffer import ImageNotBuffered
from dimp_ros.node.pipeline import TooManyTargets
from dimp_ros.node.worker import WorkerStopped
from dimp_ros.ros_utils.messages import requested_box
from dimp_ros.ros_utils.text import traceback_text

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger
    from vision_msgs.msg import BoundingBox2D

    from dimp_ros.images.stamps import StampedImage
    from dimp_ros.node.drop_log import DropLog
    from dimp_ros.node.pipeline import Pipeline
    from dimp_ros.ros_utils.parameters import Settings

MAX_NAME = 255
"""Longest name of a target, characters: it is in every message about the target."""

CATCH_UP_SECONDS = 1.0
"""How long the answer to a late request waits for the target to catch up."""

_LAST_SECOND = 2**31 - 1

T = TypeVar("T")


class RequestRefused(ValueError):
    """A request that was refused; the text is the answer, with the remedy."""


class BoxRefused(RequestRefused):
    """A request whose box cannot be used in this image."""


class Started(NamedTuple):
    """A target was started: the answer, its box, the stamp of its image, that of the last replayed one, their number.

    :param box: in pixels of its image; the one that was found where the request gave a point.
    """

    message: str
    box: Box
    stamp: Time
    reached: Time
    images: int


class Requests:
    """Checks requests and has the pipeline serve them. May be called from any thread but the worker's.

    A refused request leaves the running targets alone.

    :param explain_silence: returns why there is no image; called only when a request needs one and there is none.
    :param drops: numbers those to drop targets.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        settings: Settings,
        logger: RcutilsLogger,
        explain_silence: Callable[[], str],
        drops: DropLog,
    ) -> None:
        self.drops = drops
        self._pipeline = pipeline
        self._settings = settings
        self._logger = logger
        self._explain_silence = explain_silence
        self._numbers = itertools.count(1)
        self._latest: dict[str, object] = {}  # what stands for the last start of each name

    def init_target(
        self,
        stamp: Time,
        bbox: BoundingBox2D,
        normalized: bool,
        target_id: str,
        still_wanted: Callable[[], bool] = lambda: True,
        drop_number: int = 0,
    ) -> Started:
        """Start a target in ``bbox`` in the image with ``stamp``; see srv/InitTarget.

        A target that was not started in time is dropped as soon as it is: what was refused does not happen later.

        :param still_wanted: asked last of all whether to start it. :param drop_number: of the last drop that was known
            when the request was made; 0 for the last one until now.
        :raises RequestRefused: with what was wrong and the remedy.
        """
        pipeline, asked = self._pipeline, drop_number or self.drops.number
        if not pipeline.enabled:
            raise RequestRefused("tracking is disabled; call ~/set_enabled with data: true first")
        if len(target_id) > MAX_NAME:
            raise RequestRefused(
                f"id {_shown(target_id)} has {len(target_id)} characters and must have {MAX_NAME} at most: shorten it"
            )
        image = self.find(stamp)
        try:
            picture = pipeline.open_image(image)
        except BadImage as error:
            raise RequestRefused(str(error)) from error
        try:
            box = requested_box(bbox, normalized, picture.width, picture.height)
            # As the tracker does, but at once: a wrong box is refused while an inference runs.
            if box.is_point:
                check_point(box.center, picture.width, picture.height)
            else:
                check_box(box, picture.width, picture.height, min_side=pipeline.tracker.config.min_target_side)
        except ValueError as error:
            raise BoxRefused(str(error)) from error
        known = pipeline.targets
        name = target_id or self._new_name(known)
        if not still_wanted():
            raise RequestRefused(f"{_shown(name)} has been started by another request")
        if self.drops.dropped_since(target_id, asked):
            raise RequestRefused(f"{_dropped(name)} after this start was asked for; ask again")
        begun = self._latest[name] = object()
        try:
            start, late = self._await(pipeline.begin(image, picture, box, name), name)
            self._require(name, asked, begun)
        finally:
            if self._latest.get(name) is begun:
                del self._latest[name]
        answer = f"tracking {name!r}{', started over' if name in known else ''}"
        if box.is_point:
            answer += f"; found a box of {start.w:.0f} x {start.h:.0f} px at the point"
        if late is None:
            return Started(answer, start, image.header.stamp, image.header.stamp, 0)
        arrived = late.arrived.wait(CATCH_UP_SECONDS)
        replayed = f"replayed {late.images} buffered image{'' if late.images == 1 else 's'}"
        answer += f"; {replayed}" if arrived else f"; LOST until it has caught up, so far {replayed}"
        self._require(name, asked)
        return Started(answer, start, image.header.stamp, _time(late), late.images)

    def _require(self, name: str, asked: int, begun: object = None) -> None:
        """Check that a target was not dropped while it was started, and drop it if it was.

        :param begun: what stands for this start while it may be ended: a later one of the name is left alone.
        :raises RequestRefused: if it was.
        """
        if self.drops.dropped_since(name, asked):
            if begun is not None and self._latest.get(name) is begun:
                self._pipeline.drop(name)
            raise RequestRefused(f"{_dropped(name)} by another request while it was started")

    def drop_target(self, target_id: str, received: int = 0) -> str:
        """Drop ``target_id``, or all targets if empty, and return what was dropped.

        A target that an earlier request is still starting, even one that was not answered in time, is dropped as well.
        Detections do not start theirs again until tracking is enabled anew, or a request starts it.

        :param received: when the request was received, see `DropLog.add`.
        :raises RequestRefused: for a name that is neither followed nor being started.
        """
        self.drops.add(target_id, received)
        for_detections = self._settings["detector.target_id"]
        if target_id in ("", for_detections):
            self.drops.detections_held = True
        starting = self._pipeline.starting  # read first: a target that has started meanwhile is among the followed
        known = self._pipeline.targets
        droppable = tuple(dict.fromkeys((*known, *starting)))
        self._pipeline.repeat()
        if target_id and target_id not in droppable:
            names = f"followed are {', '.join(map(repr, known))}" if known else "no target is followed"
            held = "; no detection starts it until ~/set_enabled with data: true" if target_id == for_detections else ""
            raise RequestRefused(f"target {_shown(target_id)} is unknown: {names}{held}")
        dropped = (target_id,) if target_id else droppable
        for name in dropped:
            self._pipeline.drop(name)
        if not dropped:
            return "no target was followed"
        remedy = "; detections start it again after ~/set_enabled with data: true" if for_detections in dropped else ""
        return f"dropped: {', '.join(map(repr, dropped))}{remedy}"

    def take_detections_again(self, target_id: str) -> None:
        """Let detections start their target, where an operator has started ``target_id`` and that is its name."""
        if target_id == self._settings["detector.target_id"]:
            self.drops.detections_held = False

    def set_enabled(self, enabled: bool) -> str:
        """Switch inference on or off and return the answer; targets are kept, but LOST while it is off."""
        self._pipeline.set_enabled(enabled)
        self.drops.detections_held = self.drops.detections_held and not enabled
        if enabled:
            return "tracking is enabled"
        return "tracking is disabled: every target's state is LOST until it is enabled again"

    def find(self, stamp: Time) -> StampedImage:
        """Return the image with a stamp.

        :raises RequestRefused: if it is not held.
        """
        history = self._pipeline.history
        try:
            return history.find(stamp)
        except ImageNotBuffered as error:
            reason = str(error) if len(history) else f"{error}: {self._explain_silence()}"
            raise RequestRefused(reason) from error

    def _new_name(self, known: tuple[str, ...]) -> str:
        return next(name for name in map(str, self._numbers) if name not in known)

    def _await(self, future: Future[T], name: str) -> T:
        """Wait for the worker to start a target, up to request_timeout."""
        seconds = self._settings["request_timeout"]
        try:
            return future.result(timeout=seconds)
        except RequestTimeout as error:
            if not future.cancel():
                self._pipeline.drop(name)
            raise RequestRefused(
                f"the tracker has not answered for {seconds:g} s: the target is not started; ask again"
            ) from error
        except (TooManyTargets, WorkerStopped) as error:
            raise RequestRefused(str(error)) from error
        except ValueError as error:
            raise BoxRefused(str(error)) from error
        except Exception as error:
            self._logger.error(f"initialising the target failed:\n{traceback_text(error)}")
            raise RequestRefused(f"the tracker failed: {type(error).__name__}: {error}; the log has more") from error


def _dropped(name: str) -> str:
    return f"target {_shown(name)} was dropped"


def _shown(target_id: str) -> str:
    """Return a name for a text; of one that is too long, its ends."""
    return repr(target_id) if len(target_id) <= MAX_NAME else reprlib.repr(target_id)


def _time(late: PendingReplay) -> Time:
    """Return the stamp that a late target has reached; an image's stamp may have more than 1e9 nanoseconds."""
    reached = late.reached  # read once: it changes meanwhile
    sec = min(reached // NANOSECONDS, _LAST_SECOND)
    return Time(sec=sec, nanosec=reached - sec * NANOSECONDS)
