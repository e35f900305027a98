# SPDX-License-Identifier: Apache-2.0
"""A tracker node's inside without a node: pipeline, requests and outputs, whose publishers note what they are given."""

from __future__ import annotations

import array
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from types import SimpleNamespace
from typing import Any

from builtin_interfaces.msg import Time
from harness.camera_fixtures import camera_info
from harness.ros_harness import BOX, HEIGHT, WIDTH, ScriptedTracker, State
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from vision_msgs.msg import BoundingBox2D

import dimp_ros.node.requests as requests_module
from dimp_ros.node.detection_input import DetectorInput
from dimp_ros.node.diagnostics.statistics import Statistics
from dimp_ros.node.image_buffer import ImageBuffer
from dimp_ros.node.pipeline import Pipeline
from dimp_ros.node.position.estimator import PositionEstimator
from dimp_ros.node.publishers import Publishers
from dimp_ros.node.requests import RequestRefused, Requests
from dimp_ros.ros_utils.image_decoder import ImageDecoder
from dimp_ros.ros_utils.parameter_table import NODE_PARAMETERS
from fuzz.draw import odd_float, odd_int, odd_text, some

PATIENCE_SECONDS = 8.0
"""How long is waited for what takes a millisecond: the machine may be busy."""

WAITING_SECONDS = 0.02
"""What stands for the second that a request waits for an image that may come, and for a target to catch up."""

MAX_TARGETS = 3
NANOSECONDS = 10**9


@contextmanager
def short_waits() -> Iterator[None]:
    """Have requests wait for 20 ms where they would for a second: nobody is going to send the image."""
    before = ImageBuffer.OVERTAKEN_SECONDS, requests_module.CATCH_UP_PATIENCE_SECONDS
    ImageBuffer.OVERTAKEN_SECONDS = requests_module.CATCH_UP_PATIENCE_SECONDS = WAITING_SECONDS
    try:
        yield
    finally:
        ImageBuffer.OVERTAKEN_SECONDS, requests_module.CATCH_UP_PATIENCE_SECONDS = before


class _Publisher:
    """Notes the last message; whatever is published must be one that can be sent."""

    def __init__(self, kind: type, told: threading.Condition) -> None:
        self.kind = kind
        self.last: Any = None
        self.count = 0
        self.wanted = False
        self._told = told

    def publish(self, message: Any) -> None:
        assert isinstance(message, self.kind)
        serialize_message(message)
        with self._told:
            self.last = message
            self.count += 1
            self._told.notify_all()

    def get_subscription_count(self) -> int:
        return int(self.wanted)


class _Desk:
    """What `Publishers` needs of a node, and a logger."""

    def __init__(self) -> None:
        self.told = threading.Condition()
        self.topics: dict[str, _Publisher] = {}
        self.errors: list[str] = []

    def create_publisher(self, kind: type, topic: str, qos: Any, **_: Any) -> _Publisher:
        self.topics[topic] = _Publisher(kind, self.told)
        return self.topics[topic]

    def get_clock(self) -> Any:
        return self

    def now(self) -> Any:
        return SimpleNamespace(nanoseconds=time.time_ns())

    def info(self, text: str, **_: Any) -> None:
        text.encode()

    warning = info

    def error(self, text: str, **_: Any) -> None:
        text.encode()
        self.errors.append(text)


class World:
    """A pipeline at work on images, with targets; `expected` are those that must be there, by what was asked for."""

    def __init__(self) -> None:
        self.desk = _Desk()
        self.tracker = ScriptedTracker()
        self.settings: dict[str, Any] = {row.name: row.default for row in NODE_PARAMETERS}
        self.settings.update(max_targets=MAX_TARGETS, target_width=0.5, history_seconds=5.0)
        self.positioner = PositionEstimator(target_width=0.5)
        self.positioner.on_camera_info(camera_info((WIDTH, HEIGHT), [60.0, 0, 32.0, 0, 60.0, 24.0, 0, 0, 1.0]))
        self.history = ImageBuffer(self.settings["history_seconds"], 2**20)
        self.statistics = Statistics()
        desk: Any = self.desk
        self.pipeline = Pipeline(
            self.tracker,
            Publishers(desk, self.positioner, self.settings),
            self.history,
            desk,
            self.settings,
            self.statistics,
            ImageDecoder(self.settings),
        )
        self.requests = Requests(self.pipeline, self.settings, desk, lambda: "nobody publishes")
        self.detector = DetectorInput(self.pipeline, self.requests, self.settings, desk)
        self.expected: set[str] = set()
        self.planned_errors: tuple[str, ...] = ()
        """What the tracker was told to do wrong; other tracebacks in the log are failures."""
        self._images = 0
        self.pipeline.start()

    def next_image(self) -> Image:
        """Return a good image, 0.1 s after the one before."""
        self._images += 1
        stamp = Time(sec=1000 + self._images // 10, nanosec=self._images % 10 * 100_000_000)
        return self.image(stamp)

    def image(self, stamp: Time, width: int = WIDTH, height: int = HEIGHT) -> Image:
        """Return an image with a stamp."""
        image = Image(width=width, height=height, encoding="bgr8", step=3 * width)
        image.header.frame_id, image.header.stamp = "lens", stamp
        image.data = array.array("B", bytes([self._images % 256]) * (3 * width * height))
        return image

    def show(self, image: Any) -> dict[str, Any]:
        """Have an image worked on and return what is said of the targets in it, by name."""
        targets = self.desk.topics["targets"]
        before = targets.count

        def told() -> bool:
            return targets.count > before and targets.last.header == image.header

        self.pipeline.receive(image)
        with self.desk.told:
            assert self.desk.told.wait_for(told, PATIENCE_SECONDS), f"nothing is said of an image; {self.trouble}"
            return {state.id: state for state in targets.last.targets}

    def settle(self) -> None:
        """Wait until no target is late any more."""
        end = time.monotonic() + PATIENCE_SECONDS
        while self.pipeline.late:
            assert time.monotonic() < end, f"still late: {self.pipeline.late}; {self.trouble}"
            time.sleep(0.0005)

    def ask(self, job: Callable[[], Any]) -> Any:
        """Return what a request gives, None if it is refused in words."""
        try:
            return job()
        except RequestRefused as error:
            assert 10 < len(str(error).encode()) < 5000, f"no reason, or far too long a one: {str(error)[:5000]!r}"
            return None

    def take(self, stamp: Time, bbox: BoundingBox2D, normalized: bool, target_id: str) -> bool:
        """Ask for a target and return whether it was taken; then it must be there from now on."""
        before = set(self.pipeline.targets)
        started = self.ask(lambda: self.requests.init_target(stamp, bbox, normalized, target_id))
        if started is None:
            return False
        for one in (started.stamp, started.reached):
            serialize_message(one)
        name = target_id or next(iter(set(self.pipeline.targets) - before))
        self.expected.add(name)
        box = self.tracker.boxes[name]
        assert all(map(math.isfinite, box)) and min(box[2:]) >= 1.0, f"taken is {box}"
        return True

    def drop(self, target_id: str) -> bool:
        """Ask to drop a target, or all; return whether that was done."""
        said = self.ask(lambda: self.requests.drop_target(target_id))
        if said is not None:
            self.expected -= {target_id} if target_id else self.expected.copy()
        return said is not None

    def check(self) -> None:
        """Assert that every expected target is there and is followed in the next good image, and no other.

        :raises AssertionError: if not.
        """
        assert set(self.pipeline.targets) == self.expected, f"{self.pipeline.targets}, not {self.expected}"
        self.show(self.next_image())
        self.settle()
        states = self.show(self.next_image())
        assert set(states) == self.expected, f"{sorted(states)}, not {self.expected}; {self.trouble}"
        for name, state in states.items():
            assert state.state == State.TRACKING, f"{name!r} is {state.state}; {self.trouble}"
            box, told = self.tracker.boxes[name], state.bbox
            assert (told.size_x, told.size_y) == box[2:], f"{name!r} is at {told}, not {box}"
        for error in self.desk.errors:
            assert "Traceback" not in error or any(planned in error for planned in self.planned_errors), error
        self.desk.errors.clear()

    def close(self) -> None:
        """End it, which must be done at once and say that all targets are gone."""
        assert not self.pipeline.exit_cause, self.pipeline.exit_cause
        assert self.pipeline.stop(PATIENCE_SECONDS), "the thread does not end"
        assert self.pipeline.targets == () and not self.desk.topics["targets"].last.targets
        self.statistics.snapshot()

    @property
    def trouble(self) -> str:
        """What the log has to say."""
        return "; ".join([self.pipeline.exit_cause, *self.desk.errors])


@contextmanager
def world() -> Iterator[World]:
    """Have a world that follows two targets, and end it."""
    made = World()
    try:
        for _ in range(3):
            made.show(made.next_image())
        for name in ("cup", "böll"):
            assert made.take(Time(), bounding_box(*BOX), False, name)
        yield made
    finally:
        ended = made.pipeline.stop(PATIENCE_SECONDS)
        assert ended, "the thread does not end"


def bounding_box(x: float, y: float, w: float, h: float) -> BoundingBox2D:
    """Return (x, y, w, h) as a message."""
    bbox = BoundingBox2D(size_x=float(w), size_y=float(h))
    bbox.center.position.x, bbox.center.position.y = x + w / 2, y + h / 2
    return bbox


def good_box(draw: Random) -> tuple[float, float, float, float]:
    """Return a box that a target can be taken from."""
    w, h = draw.uniform(4.0, 30.0), draw.uniform(4.0, 20.0)
    return draw.uniform(0.0, WIDTH - w), draw.uniform(0.0, HEIGHT - h), w, h


def odd_stamp(draw: Random) -> Time:
    """Return any stamp that fits into its message, of which not all are times."""
    near = draw.random() < 0.3
    sec = draw.randint(999, 1003) if near else odd_int(draw, -(2**31), 2**31 - 1)
    return Time(sec=sec, nanosec=odd_int(draw, 0, 2**32 - 1))


def known_stamp(draw: Random, made: World) -> Time:
    """Return zero, or the stamp of an image that is held, now and then a little off."""
    newest = made._images
    at = 1000 * NANOSECONDS + draw.randint(max(1, newest - 5), newest) * 100_000_000
    at += draw.choice((0, 0, 0, 900_000, -900_000, 10_000_000))
    return draw.choice((Time(), Time(sec=at // NANOSECONDS, nanosec=at % NANOSECONDS)))


def drawn_request(draw: Random, made: World) -> tuple[Time, BoundingBox2D, bool, str]:
    """Return a request for a target, mostly with one thing wrong."""
    normalized = draw.random() < 0.3
    scale = (WIDTH, HEIGHT, WIDTH, HEIGHT) if normalized else (1, 1, 1, 1)
    bbox = bounding_box(*(value / by for value, by in zip(good_box(draw), scale, strict=True)))
    stamp, name = known_stamp(draw, made), draw.choice(("", "cup", "böll", "third"))
    for wrong in some(draw, ("x", "y", "w", "h", "theta", "stamp", "normalized", "name", "name")):
        if wrong in "xy":
            setattr(bbox.center.position, wrong, odd_float(draw))
        elif wrong in "wh":
            setattr(bbox, "size_x" if wrong == "w" else "size_y", odd_float(draw))
        elif wrong == "theta":
            bbox.center.theta = odd_float(draw)
        elif wrong == "stamp":
            stamp = odd_stamp(draw)
        elif wrong == "normalized":
            normalized = not normalized
        else:
            name = odd_text(draw)
    return stamp, bbox, normalized, name
