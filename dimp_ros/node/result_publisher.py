# SPDX-License-Identifier: Apache-2.0
"""What was last said about the targets, and what may still be said: requests and results meet here, under one lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from std_msgs.msg import Header

from dimp_ros.tracker.target_set import TargetEstimate

if TYPE_CHECKING:
    from dimp_ros.node.publishers import Publishers


class ResultPublisher:
    """Publishes readings, and keeps them; after a request is answered, nothing that it invalidations goes out.

    May be used from any thread.
    """

    def __init__(self, outputs: Publishers) -> None:
        self._outputs = outputs
        self._lock = threading.Lock()
        self._readings: dict[str, TargetEstimate] = {}
        self._size = (0, 0)
        self._silenced: set[str] = set()  # targets that were dropped, but that nobody has let go yet
        self._closed = False
        self.header = Header()
        """Of the last image that was published about."""
        self.invalidations = 0
        """Counts requests that make the result of an inference in progress void."""

    @property
    def readings(self) -> dict[str, TargetEstimate]:
        """What was last said about each target."""
        with self._lock:
            return dict(self._readings)

    def held(self, target_ids: Iterable[str]) -> tuple[str, ...]:
        """Return the names of those that are not being dropped."""
        return tuple(name for name in target_ids if name not in self._silenced)

    def start(self) -> None:
        """Say that there is no target yet."""
        self._outputs.publish_states(self.header, [], self._size)

    def close(self) -> bool:
        """Publish nothing more but the farewell; return whether it was open."""
        with self._lock:
            was_open, self._closed = not self._closed, True
        return was_open

    def publish_terminated(self, target_ids: Iterable[str]) -> None:
        """Say that targets are gone, after the end."""
        self._outputs.publish(self.header, [], self._size, gone=[TargetEstimate(target_id=name) for name in target_ids])

    def note(self, readings: dict[str, TargetEstimate]) -> None:
        """Keep readings that are to be told of with the next word about the last image."""
        with self._lock:
            self._readings = {**self._readings, **readings}

    def silence(self, target_id: str) -> None:
        """Say nothing more about a target but that it is gone."""
        with self._lock:
            self._silenced.add(target_id)

    def invalidate_in_flight(self) -> None:
        """Have results of what is in progress published as not in sight."""
        with self._lock:
            self.invalidations += 1

    def forget(self, target_ids: Iterable[str], gone: Sequence[str]) -> None:
        """Lift the silence about targets, and say of those that there were that they are gone."""
        with self._lock:
            self._silenced.difference_update(target_ids)
            for name in gone:
                self._readings.pop(name, None)
            self._repeat([TargetEstimate(target_id=name) for name in gone])

    def republish(self, readings: dict[str, TargetEstimate]) -> None:
        """Say something else about the last image."""
        with self._lock:
            self._readings = readings
            self._repeat()

    def publish(
        self,
        header: Header,
        size: tuple[int, int] | None,
        readings: dict[str, TargetEstimate],
        invalidations: int,
        unseen: Callable[[str], TargetEstimate],
    ) -> tuple[list[TargetEstimate], float] | None:
        """Publish about an image.

        :param size: width and height of the image; None where it is not known. :param invalidations: the count when the
            work on it began. :param unseen: makes the reading of a target whose result a request has invalidations.
        :returns: what was said, and the image's age in seconds; None after the end.
        """
        with self._lock:
            if self._closed:
                return None
            if invalidations != self.invalidations:
                readings = {name: unseen(name) for name in readings}
            self.header, self._readings = header, readings
            self._size = size or self._size
            said = self._valid()
            return said, self._outputs.publish(header, said, self._size)

    def _repeat(self, gone: Sequence[TargetEstimate] = ()) -> None:
        """Publish anew what holds under the last image's header; with the lock held."""
        if not self._closed:
            self._outputs.publish(self.header, self._valid(), self._size, gone=gone)

    def _valid(self) -> list[TargetEstimate]:
        """Return the readings without those of targets that were dropped; with the lock held."""
        return [reading for name, reading in self._readings.items() if name not in self._silenced]
