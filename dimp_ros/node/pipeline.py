# SPDX-License-Identifier: Apache-2.0
"""From images to published results: the work of the worker's thread while the node is active."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from dimp_ros.geometry.box import Box
from dimp_ros.images.conversion import BadImage
from dimp_ros.images.picture import Picture
from dimp_ros.images.stamps import NANOSECONDS, stamp_ns
from dimp_ros.node.catch_up import CatchUp, PendingReplay
from dimp_ros.node.image_buffer import ImageBuffer
from dimp_ros.node.result_publisher import ResultPublisher
from dimp_ros.node.worker import Worker
from dimp_ros.ros_utils.callbacks import LOG_PERIOD_SECONDS
from dimp_ros.ros_utils.parameters import Settings
from dimp_ros.ros_utils.text import shortened, traceback_text
from dimp_ros.tracker.result import TargetEstimate
from dimp_ros.tracker.target_set import TargetManager, Tracker

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger

    from dimp_ros.images.stamps import StampedImage
    from dimp_ros.node.diagnostics.statistics import Statistics
    from dimp_ros.node.publishers import Publishers


class TooManyTargets(ValueError):
    """A new target beyond the limit; the text says which targets there are."""


class Pipeline:
    """Receives images, follows the targets in the newest of them in a thread of its own, and publishes.

    Only that thread uses the tracker. A target that was set in a past image catches up between live images: a bounded
    number of steps for each, and more while no image waits.

    :param open_image: decodes a message, or raises `BadImage`.
    :param enabled: whether inference is on; shared, so that a pause holds that comes while the node is deactivated.
    :param recover: called in the worker's thread with what the tracker raised; may repair the tracker, must not raise.
    """

    def __init__(
        self,
        tracker: Tracker,
        outputs: Publishers,
        history: ImageBuffer,
        logger: RcutilsLogger,
        settings: Settings,
        statistics: Statistics,
        open_image: Callable[[StampedImage], Picture],
        enabled: threading.Event,
        recover: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self.tracker = tracker
        self.history = history
        self.open_image = open_image
        self._targets = TargetManager(tracker, first_start=1 + secrets.randbelow(2**31))
        self._starting: list[str] = []  # names in jobs of `begin` that have not ended
        self._late = CatchUp(history)
        self._outputs = outputs
        self._results = ResultPublisher(outputs)
        self._logger = logger
        self._settings = settings
        self._statistics = statistics
        self._recover = recover
        self._worker: Worker[StampedImage] = Worker(
            self._process, self._report, idle=self._catch_up, wait_share=lambda: float(settings["wait_for_next"])
        )
        self._stamp = 0
        self._received = self._processed = 0
        self._stride = 1  # of how many images received one is processed
        self._enabled = enabled
        self.last_image = time.monotonic()
        """When the last image was received, or the pipeline was made; by the monotonic clock."""

    # Called from any thread

    @property
    def enabled(self) -> bool:
        """Whether inference is on."""
        return self._enabled.is_set()

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets, without those that are being dropped."""
        return self._results.held(self._targets.ids)

    @property
    def starting(self) -> tuple[str, ...]:
        """Names of the targets that `begin` has not started yet; a name may be followed already."""
        return tuple(self._starting)

    @property
    def estimates(self) -> list[TargetEstimate]:
        """The last estimate of each target."""
        return list(self._results.estimates.values())

    @property
    def late(self) -> tuple[str, ...]:
        """Names of the targets that are still catching up."""
        return self._late.ids

    @property
    def exit_cause(self) -> str:
        """Why the thread has ended although nobody stopped it; empty while it has not."""
        return repr(self._worker.cause) if self._worker.died else ""

    def start(self) -> None:
        """Publish that there is no target yet, and start the thread."""
        self._results.start()
        self._worker.start()

    def stop(self, timeout: float) -> bool:
        """Stop working, publish that the targets are gone, and release all images and targets.

        :returns: whether the thread has ended within ``timeout`` seconds; if not, its result is not published.
        """
        first = self._results.close()
        ended = self._worker.stop(timeout)
        self._late.clear()
        if first:
            self._results.publish_terminated(self._targets.ids)
        self.history.clear()
        if ended:
            for name in self._targets.ids:
                self._targets.drop(name)
        return ended

    def receive(self, image: StampedImage) -> None:
        """Take an image from the topic; returns at once."""
        self.last_image = time.monotonic()
        self._received += 1
        self._statistics.on_received(stamp_ns(image.header.stamp), len(image.data))
        self.history.add(image)
        if self._worker.offer(image):
            self._statistics.on_replaced()

    def submit(self, job: Callable[[], Any]) -> Future[Any]:
        """Run ``job`` in the worker's thread before the next image."""
        return self._worker.submit(job)

    def begin(
        self, image: StampedImage, picture: Picture, box: Box, target_id: str
    ) -> Future[tuple[Box, PendingReplay | None]]:
        """Start a target before the next image; one of the same name starts over.

        :param image: the message of ``picture``. :param box: in pixels; of no size for a point on the target.
        :returns: in time, the box, which is found for a point; and the replay of the images since then, if newer ones
            have been published about already. `TooManyTargets` beyond the limit.
        """
        self._starting.append(target_id)
        future = self._worker.submit(lambda: self._begin(image, picture, box, target_id))
        future.add_done_callback(lambda _: self._starting.remove(target_id))
        return future

    def drop(self, target_id: str) -> None:
        """Drop a target, also one in ``starting``: nothing more is published about it but that it is gone."""
        self._results.suppress(target_id)
        self._worker.submit(lambda: self._let_go([target_id]))

    def repeat(self) -> None:
        """Publish again what is known of the last image: the number of the last drop has changed."""
        self._worker.submit(lambda: self._results.forget((), ()))

    def set_enabled(self, enabled: bool) -> None:
        """Switch inference on or off; targets are kept, but LOST while it is off."""
        if enabled:
            self._enabled.set()
        else:
            self._enabled.clear()
            self._results.invalidate_in_flight()
            self._worker.submit(self._pause)

    # In the worker's thread

    def _begin(
        self, image: StampedImage, picture: Picture, box: Box, target_id: str
    ) -> tuple[Box, PendingReplay | None]:
        limit = self._settings["max_targets"]
        if target_id not in self._targets.ids and len(self._targets.ids) >= limit:
            names = ", ".join(map(repr, self._targets.ids))
            raise TooManyTargets(
                f"{limit} targets are followed already ({names}) and max_targets is {limit}: drop one, or raise it"
            )
        invalidations = self._results.invalidations
        when = self._when(image)
        try:
            box = self._targets.find_box(picture, box)
            estimate = self._targets.init(picture, box, target_id, when)
        except Exception as error:
            self._recover(error)
            raise
        self._late.discard(target_id)
        if image.header == self._results.header:  # otherwise the image is yet to be processed
            self._publish(image, picture, {**self._results.estimates, target_id: estimate}, invalidations)
            return box, None
        # The next message about the last image includes the target.
        self._results.stage({target_id: self._targets.unseen(target_id, when)})
        if when < self._stamp and stamp_ns(image.header.stamp):
            return box, self._late.add(target_id, when)
        return box, None

    def _process(self, image: StampedImage) -> None:
        """Follow the targets in ``image`` and publish; after an error they are LOST: a box is always of this image."""
        invalidations = self._results.invalidations
        when = self._when(image)
        if self._stamp and when < self._stamp:  # the images' clock was set back
            self._targets.shift(when - self._stamp, self._targets.ids)
            self._late.clear()
        elif self._stamp and 0 < self._settings["give_up_after"] * NANOSECONDS < when - self._stamp:
            self._targets.pause()  # set forward, or no image came: nobody searched
        self._stamp = when
        self._stride, self._processed = max(1, self._received - self._processed), self._received
        picture, estimates = None, {}
        following = [name for name in self._targets.ids if name not in self._late.ids]
        try:
            picture = self.open_image(image)
            if self.enabled:
                estimates = self._follow(picture, when, following)
        except BadImage as error:
            picture = None
            self._complain(error)
        except Exception as error:
            self._report(error)
        found = {name: estimates.get(name) or self._targets.skip(name, when) for name in self._targets.ids}
        self._publish(image, picture, found, invalidations)
        self._give_up(when)
        for _ in range(self._settings["catch_up_images"]):
            if not self._catch_up():
                break

    def _follow(self, picture: Picture, when: int, ids: Sequence[str]) -> dict[str, TargetEstimate]:
        """Return the valid estimates, and report invalid results."""
        estimates = self._targets.follow(picture, when, ids)
        if self._targets.invalid:
            self._report(RuntimeError(self._targets.invalid))
        return estimates

    def _catch_up(self) -> bool:
        """Replay the next buffered image to a late target; return whether more is to do."""
        step = self._late.next(self._stamp, self._stride) if self.enabled else None
        if step is None:
            return False
        late, image, stamp = step
        invalidations = self._results.invalidations
        estimates: dict[str, TargetEstimate] = {}
        picture = None
        try:
            picture = self.open_image(image)
            estimates = self._follow(picture, stamp, [late.target_id])
        except BadImage:
            pass  # was reported when it was new
        except Exception as error:
            self._report(error)
        if self._late.advance(late, stamp, self._stamp) and estimates:
            self._publish(image, picture, {**self._results.estimates, **estimates}, invalidations)
        return True

    def _give_up(self, when: int) -> None:
        """Drop targets that have been LOST for too long."""
        seconds = self._settings["give_up_after"]
        if seconds > 0 and (overdue := self._targets.overdue(when, seconds)):
            self._logger.warning(f"dropped after {seconds:g} s LOST: {', '.join(map(repr, overdue))}")
            self._let_go(overdue)

    def _let_go(self, target_ids: Iterable[str]) -> None:
        """Drop targets and publish that they are gone."""
        known = [name for name in target_ids if name in self._targets.ids]
        for name in known:
            self._targets.drop(name)
            self._late.discard(name)
        self._results.forget(target_ids, known)

    def _pause(self) -> None:
        """Publish all targets as LOST: there may be no further image."""
        self._late.clear()
        self._targets.pause()
        self._results.republish({name: self._targets.unseen(name, self._stamp) for name in self._targets.ids})

    def _publish(
        self, image: StampedImage, picture: Picture | None, estimates: dict[str, TargetEstimate], invalidations: int
    ) -> None:
        """Publish about ``image``; targets that a request has invalidated meanwhile are LOST."""
        size = None if picture is None else (picture.width, picture.height)
        published = self._results.publish(
            image.header, size, estimates, invalidations, lambda name: self._targets.unseen(name, self._stamp)
        )
        if published is None:
            return
        shown, age = published
        self._statistics.on_processed(age, self._targets.stage_ms)
        if picture is not None and self._outputs.debug_image_wanted:
            try:
                self._outputs.publish_debug_image(image.header, picture, shown)
            except BadImage as error:  # the pixels were not decoded before
                self._complain(error)

    def _when(self, image: StampedImage) -> int:
        """Return the time of an image, nanoseconds: its stamp, or now by a steady clock where it has none."""
        return stamp_ns(image.header.stamp) or time.monotonic_ns()

    def _complain(self, error: BadImage) -> None:
        """Log why an image is not used."""
        self._statistics.on_error(str(error), bad_image=True)
        self._logger.error(f"image is not used: {shortened(str(error))}", throttle_duration_sec=LOG_PERIOD_SECONDS)

    def _report(self, error: Exception) -> None:
        """Log an error of the tracker; the thread goes on with the next image."""
        trace = traceback_text(error)
        self._statistics.on_error(shortened(f"{type(error).__name__}: {error}"))
        self._logger.error(f"tracking failed in this image:\n{trace}", throttle_duration_sec=LOG_PERIOD_SECONDS)
        self._recover(error)
