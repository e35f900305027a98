# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the console's tests: a camera with coloured squares, a tracker that follows them, and the console."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
from harness.ros_harness import RELIABLE, Image, Node, Parameter, State, context, spinning, tracker_node, wait_until
from harness.tracker_double import TrackerDouble
from numpy.typing import NDArray
from std_msgs.msg import Header

from dimp_ros.apps.console.node import ConsoleNode
from dimp_ros.geometry.box import Box, check_point
from dimp_ros.images.picture import Picture, to_color
from dimp_ros.ros_utils.messages import from_bgr
from dimp_ros.tracker.result import TrackResult

SIZE = (640, 360)
SIDE = 60
COLOURS = ((40, 60, 230), (230, 200, 40))
"""Blue, green, red of the squares."""


class FakeCamera:
    """Publishes images with squares on them, from a thread of its own, until it is closed."""

    def __init__(self, rate: float = 15.0) -> None:
        self.node = Node("camera")
        self._images = self.node.create_publisher(Image, "image", RELIABLE)
        self._period = 1.0 / rate
        self.places: list[tuple[float, float] | None] = [(200.0, 120.0), None]
        """Top-left corners of the squares; None for one that is not there."""
        self.stamps: dict[tuple[int, int], list[tuple[float, float] | None]] = {}
        """What was where in the image of a stamp."""
        self.playing = True
        self.cropped = False
        """Whether its images have the upper half only."""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        columns, rows = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
        grey = 90 + 30 * np.sin(columns / 23) + 30 * np.cos(rows / 17)
        self._ground = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
        self._thread.start()

    def picture(self) -> NDArray[np.uint8]:
        """Return what is seen now."""
        picture = self._ground.copy()
        for place, colour in zip(self.places, COLOURS, strict=True):
            if place is not None:
                x, y = map(round, place)
                picture[y : y + SIDE, x : x + SIDE] = colour
        return picture[: SIZE[1] // 2] if self.cropped else picture

    def _run(self) -> None:
        while not self._closed.wait(self._period):
            if self.playing:
                header = Header(stamp=self.node.get_clock().now().to_msg(), frame_id="camera")
                self.stamps[header.stamp.sec, header.stamp.nanosec] = list(self.places)
                self._images.publish(from_bgr(header, self.picture()))

    def close(self) -> None:
        """Publish nothing more."""
        self._closed.set()
        self._thread.join()


class SquareTracker(TrackerDouble):
    """Follows the square of the strongest colour in the box; it is lost where there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.inits: list[tuple[str, tuple[float, ...]]] = []
        self._colours: dict[str, NDArray[np.uint8]] = {}

    def init(self, image: Picture, box: Sequence[float], *, target_id: str = "0") -> TrackResult:
        """Take the strongest colour in the box."""
        pixels = _pixels(image)
        x, y, w, h = (max(0, round(value)) for value in box)
        inside = pixels[y : y + h, x : x + w].reshape(-1, 3)
        colour = inside[np.argmax(np.ptp(inside, axis=1))]
        if int(colour.max()) - int(colour.min()) < 60:
            raise ValueError("there is nothing but <b>grey</b> in this box; draw it round a square")
        self.inits.append((target_id, tuple(box)))
        self._colours[target_id] = colour
        super().init(image, box, target_id=target_id)
        return self.find(image, target_id)

    def find_box(self, image: Picture, point: tuple[float, float]) -> Box:
        """Return the square at a point."""
        check_point(point, image.width, image.height)
        colour = _pixels(image)[int(point[1]), int(point[0])]
        if int(colour.max()) - int(colour.min()) < 60:
            raise ValueError("no object stands out at this point; draw a box instead")
        box = _square(image, colour)
        assert box is not None
        return box

    def update_all(self, image: Picture, only: Collection[str] | None = None) -> dict[str, TrackResult]:
        """Look for the colours."""
        time.sleep(self.seconds)
        return super().update_all(image, only)

    def find(self, image: Picture, name: str) -> TrackResult:
        """Look for a colour."""
        box = _square(image, self._colours[name])
        if box is None:
            return self.result(name, State.LOST, confidence=0.0, peak=0.0, distractor_ratio=0.0)
        return self.result(name, box=box, confidence=0.9, peak=0.8, distractor_ratio=0.1)


def _square(image: Picture, colour: NDArray[np.uint8]) -> Box | None:
    """Return the box of all pixels of a colour."""
    rows, columns = np.nonzero(np.all(_pixels(image) == colour, axis=2))
    if not rows.size:
        return None
    x, y = float(columns.min()), float(rows.min())
    return Box(x, y, float(columns.max()) + 1 - x, float(rows.max()) + 1 - y)


def _pixels(image: Picture) -> NDArray[np.uint8]:
    return to_color(image.region(0, 0, image.width, image.height))


def answer_drops_late(node: Any, seconds: float) -> None:
    """Let a tracker node wait before it serves each request to drop a target."""
    drop = next(service for service in node.services if service.srv_name.endswith("drop_target"))
    answer = drop.callback
    drop.callback = lambda request, response: time.sleep(seconds) or answer(request, response)


class ConsoleWorld(SimpleNamespace):
    """``camera``, ``tracker``, the tracker's ``node``, and the ``console``."""


@contextmanager
def world(*, tracker: bool = True, **parameters: Any) -> Iterator[ConsoleWorld]:
    """Run all of it; the console on a free port."""
    with context():
        camera = FakeCamera()
        squares = SquareTracker()
        node = tracker_node(squares, history_seconds=20.0) if tracker else None
        overrides = [Parameter(name, value=value) for name, value in {"port": 0, **parameters}.items()]
        console = ConsoleNode(parameter_overrides=overrides)
        try:
            with spinning(console, camera.node, *([node] if node else [])):
                if node:
                    wait_until(lambda: console._tracker.are_there, "the tracker's services")
                yield ConsoleWorld(camera=camera, tracker=squares, node=node, console=console)
                camera.close()
                console.close()
        finally:
            camera._closed.set()
