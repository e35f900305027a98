# SPDX-License-Identifier: Apache-2.0
"""The last published estimate of each target; requests and results meet here, under one lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from std_msgs.msg import Header

from dimp_ros.tracker.result import TargetEstimate

if TYPE_CHECKING:
    from dimp_ros.node.publishers import Publishers


class ResultPublisher:
    """Publishes estimates and keeps them; once a request is answered, no result that it invalidates is published.

    May be used from any thread.
    """

    def __init__(self, outputs: Publishers) -> None:
        self._outputs = outputs
        self._lock = threading.Lock()
        self._estimates: dict[str, TargetEstimate] = {}
        self._size = (0, 0)
        self._suppressed: set[str] = set()  # dropped by a request, but not yet in the worker's thread
        self._closed = False
        self.header = Header()
        """Of the last image that was published about."""
        self.invalidations = 0
        """Number of requests that made the result of an inference in progress void."""

    @property
    def estimates(self) -> dict[str, TargetEstimate]:
        """The last estimate of each target."""
        with self._lock:
            return dict(self._estimates)

    def held(self, target_ids: Iterable[str]) -> tuple[str, ...]:
        """Return the names of those that are not being dropped."""
        return tuple(name for name in target_ids if name not in self._suppressed)

    def start(self) -> None:
        """Publish that there is no target yet."""
        self._outputs.publish_states(self.header, [], self._size)

    def close(self) -> bool:
        """Publish nothing more but `publish_terminated`; return whether it was open."""
        with self._lock:
            was_open, self._closed = not self._closed, True
        return was_open

    def publish_terminated(self, target_ids: Iterable[str]) -> None:
        """Publish that targets are gone, after the end, and see that it arrives."""
        self._outputs.publish(self.header, [], self._size, gone=[TargetEstimate(target_id=name) for name in target_ids])
        self._outputs.flush()

    def stage(self, estimates: dict[str, TargetEstimate]) -> None:
        """Keep estimates, to be published with the next message about the last image."""
        with self._lock:
            self._estimates = {**self._estimates, **estimates}

    def suppress(self, target_id: str) -> None:
        """Publish nothing more about a target but that it is gone."""
        with self._lock:
            self._suppressed.add(target_id)

    def invalidate_in_flight(self) -> None:
        """Have results of an inference in progress published as LOST."""
        with self._lock:
            self.invalidations += 1

    def forget(self, target_ids: Iterable[str], gone: Sequence[str]) -> None:
        """Stop suppressing targets, and publish that those in ``gone`` are gone."""
        with self._lock:
            self._suppressed.difference_update(target_ids)
            for name in gone:
                self._estimates.pop(name, None)
            self._repeat([TargetEstimate(target_id=name) for name in gone])

    def republish(self, estimates: dict[str, TargetEstimate]) -> None:
        """Publish other estimates about the last image."""
        with self._lock:
            self._estimates = estimates
            self._repeat()

    def publish(
        self,
        header: Header,
        size: tuple[int, int] | None,
        estimates: dict[str, TargetEstimate],
        invalidations: int,
        unseen: Callable[[str], TargetEstimate],
    ) -> tuple[list[TargetEstimate], float] | None:
        """Publish about an image.

        :param size: width and height of the image; None where it is not known. :param invalidations: the count when the
            work on it began. :param unseen: returns the estimate of a target whose result a request has invalidated.
        :returns: what was published, and the image's age in seconds; None after the end.
        """
        with self._lock:
            if self._closed:
                return None
            if invalidations != self.invalidations:
                estimates = {name: unseen(name) for name in estimates}
            self.header, self._estimates = header, estimates
            self._size = size or self._size
            published = self._valid()
            return published, self._outputs.publish(header, published, self._size)

    def _repeat(self, gone: Sequence[TargetEstimate] = ()) -> None:
        """Publish the current estimates again under the last image's header; with the lock held."""
        if not self._closed:
            self._outputs.publish(self.header, self._valid(), self._size, gone=gone)

    def _valid(self) -> list[TargetEstimate]:
        """Return the estimates without those of targets that are being dropped; with the lock held."""
        return [estimate for name, estimate in self._estimates.items() if name not in self._suppressed]
