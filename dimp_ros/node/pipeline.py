# SPDX-License-Identifier: Apache-2.0
"""From images and requests to what is published: all that happens while the node is active."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import TimeoutError as RequestTimeout
from typing import TYPE_CHECKING

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import BoundingBox2D

from dimp_ros.node.history import FrameHistory, FrameNotHeld, stamp_ns
from dimp_ros.node.image_conversion import BadImage, check_image, to_bgr
from dimp_ros.node.messages import requested_box
from dimp_ros.node.target import Reading, TargetFollower, Tracker
from dimp_ros.node.worker import Worker, WorkerStopped

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger

    from dimp_ros.node.publishing import Outputs

LOG_PERIOD_SECONDS = 5.0


class RequestRefused(ValueError):
    """A request that was not carried out; the text is for the one who asked and names the remedy."""


class Pipeline:
    """Receives images, follows the target in the newest of them in a thread of its own, and publishes.

    Only that thread touches the tracker. ``receive`` and the requests may be called from any other. A request that
    is refused leaves the running target alone.

    :param explain_silence: says why there is no image; asked only when a request needs one and there is none.
    """

    def __init__(
        self,
        tracker: Tracker,
        outputs: Outputs,
        history: FrameHistory,
        logger: RcutilsLogger,
        explain_silence: Callable[[], str],
        request_timeout: float,
    ) -> None:
        self._follower = TargetFollower(tracker)
        self._tracker = tracker
        self._outputs = outputs
        self._history = history
        self._logger = logger
        self._explain_silence = explain_silence
        self._request_timeout = request_timeout
        self._worker: Worker[Image] = Worker(self._process, self._report)
        self._publishing = threading.Lock()  # after a request is answered, nothing it overruled may be published
        self._header = Header()  # of the last image published about
        self._enabled = True
        self._overruled = 0  # counts requests that make the result of an inference in progress void
        self._closed = False
        self._named = 0
        self.last_image = time.monotonic()
        """When the last image came, or the pipeline was made; by the monotonic clock."""

    def start(self) -> None:
        """Say that there is no target yet, and begin to work."""
        self._outputs.publish_state(self._header, Reading())
        self._worker.start()

    def stop(self, timeout: float) -> bool:
        """Stop working, say that the target is gone, and let go of all images and of the target.

        :returns: whether the thread has ended within ``timeout`` seconds; if not, what it finds is not published.
        """
        with self._publishing:
            first, self._closed = not self._closed, True
        ended = self._worker.stop(timeout)
        if first:
            self._outputs.publish(self._header, Reading())
        self._history.clear()
        if ended:
            self._follower.drop()
        return ended

    def receive(self, image: Image) -> None:
        """Take an image from the topic: note it, no more."""
        self.last_image = time.monotonic()
        self._history.add(image)
        self._worker.offer(image)

    def init_target(self, stamp: Time, bbox: BoundingBox2D, normalized: bool, target_id: str) -> tuple[str, Time]:
        """Take the target inside ``bbox`` in the image with ``stamp``; see srv/InitTarget.

        :returns: what was done, and the stamp of the image used.
        :raises RequestRefused: with what was wrong and the remedy.
        """
        if not self._enabled:
            raise RequestRefused("tracking is disabled; call ~/set_enabled with data: true first")
        image = self._find(stamp)
        try:
            check_image(image)
            box = requested_box(bbox, normalized, image.width, image.height)
        except ValueError as error:
            raise RequestRefused(str(error)) from error
        previous = self._follower.target_id
        name = target_id or self._new_name()
        self._await(lambda: self._init(image, box, name))
        replaced = f", in place of {previous!r}" if previous not in (None, name) else ""
        return f"target {name!r} is followed{replaced}", image.header.stamp

    def drop_target(self, target_id: str) -> str:
        """Stop following ``target_id``, or any target if empty, and say what was dropped.

        :raises RequestRefused: for a name that is not followed.
        """
        known = self._follower.target_id
        if target_id and target_id != known:
            names = f"the one that is followed is {known!r}" if known is not None else "no target is followed"
            raise RequestRefused(f"target {target_id!r} is unknown: {names}")
        if known is None:
            return "no target was followed"
        with self._publishing:
            self._overruled += 1
        self._worker.submit(self._drop)
        return f"target {known!r} is dropped"

    def set_enabled(self, enabled: bool) -> str:
        """Switch inference on or off and say what that means; a target is kept, but LOST until it is on again."""
        with self._publishing:
            self._enabled = enabled
            self._overruled += not enabled
        if enabled:
            return "tracking is enabled"
        self._worker.submit(self._announce)
        return "tracking is disabled: the target's state is LOST until it is enabled again"

    def _find(self, stamp: Time) -> Image:
        try:
            return self._history.find(stamp)
        except FrameNotHeld as error:
            reason = str(error) if len(self._history) else f"{error}: {self._explain_silence()}"
            raise RequestRefused(reason) from error

    def _new_name(self) -> str:
        self._named += 1
        return str(self._named)

    def _await(self, job: Callable[[], None]) -> None:
        """Have the worker do ``job`` and wait for it, but not for ever."""
        try:
            future = self._worker.submit(job)
            future.result(timeout=self._request_timeout)
        except RequestTimeout as error:
            undone = future.cancel()
            raise RequestRefused(
                f"the tracker has not answered for {self._request_timeout:g} s"
                + ("; ask again" if undone else "; watch the target topic, the request may still take effect")
            ) from error
        except (ValueError, WorkerStopped) as error:
            raise RequestRefused(str(error)) from error
        except Exception as error:
            self._logger.error(f"initialising the target failed:\n{traceback.format_exc()}")
            raise RequestRefused(f"the tracker failed: {type(error).__name__}: {error}; the log has more") from error

    def _init(self, image: Image, box: tuple[float, float, float, float], name: str) -> None:
        """Initialise on ``image``; the result is published unless a newer image has been reported on already."""
        overruled = self._overruled
        stamp = stamp_ns(image.header.stamp)
        picture = to_bgr(image)
        reading = self._follower.init(picture, box, name, stamp)
        if stamp >= stamp_ns(self._header.stamp):
            self._publish(image, reading, picture, overruled)

    def _drop(self) -> None:
        self._follower.drop()
        self._announce()

    def _announce(self) -> None:
        """Publish what holds now under the last image's header: there may be no further image to say it with."""
        with self._publishing:
            if not self._closed:
                self._outputs.publish(self._header, self._follower.unseen(stamp_ns(self._header.stamp)))

    def _process(self, image: Image) -> None:
        """Follow the target in ``image`` and publish; whatever goes wrong, no box but one of this image goes out."""
        overruled = self._overruled
        stamp = stamp_ns(image.header.stamp)
        following = self._enabled and self._follower.target_id is not None
        picture, reading = None, None
        try:
            check_image(image)
            if following or self._outputs.debug_image_wanted:
                picture = to_bgr(image)
            if following and picture is not None:
                reading = self._follower.follow(picture, stamp)
        except BadImage as error:
            self._logger.error(f"image is not used: {error}", throttle_duration_sec=LOG_PERIOD_SECONDS)
        except Exception as error:
            self._report(error)
        self._publish(image, reading or self._follower.skip(stamp), picture, overruled)

    def _publish(self, image: Image, reading: Reading, picture: NDArray[np.uint8] | None, overruled: int) -> None:
        """Publish about ``image``, as not in sight if a request has overruled the ``reading`` meanwhile."""
        with self._publishing:
            if self._closed:
                return
            if overruled != self._overruled:
                reading = self._follower.skip(stamp_ns(image.header.stamp))
            self._header = image.header
            self._outputs.publish(image.header, reading)
        if picture is not None and self._outputs.debug_image_wanted:
            self._outputs.publish_debug_image(image.header, picture, reading)

    def _report(self, error: Exception) -> None:
        """Log what went wrong in the thread; it goes on with the next image."""
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self._logger.error(f"tracking failed in this image:\n{trace}", throttle_duration_sec=LOG_PERIOD_SECONDS)
