# SPDX-License-Identifier: Apache-2.0
"""The parts of a tracker node without a node: pipeline, requests and publishers that record their messages."""

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
from dimp_ros.node.drop_log import DropLog
from dimp_ros.node.image_buffer import ImageBuffer
from dimp_ros.node.pipeline import Pipeline
from dimp_ros.node.position.estimator import PositionEstimator
from dimp_ros.node.publishers import Publishers
from dimp_ros.node.requests import RequestRefused, Requests
from dimp_ros.ros_utils.image_decoder import ImageDecoder
from dimp_ros.ros_utils.parameter_table import NODE_PARAMETERS
from fuzz.draw import odd_float, odd_int, odd_text, some

PATIENCE_SECONDS = 8.0
"""Timeout for what takes a millisecond on an idle machine."""

WAITING_SECONDS = 0.02
"""Replaces the second that a request waits for an image to arrive, and for a target to catch up."""

MAX_TARGETS = 3
NANOSECONDS = 10**9


@contextmanager
def short_waits() -> Iterator[None]:
    """Let requests wait for 20 ms instead of a second: no image will arrive."""
    before = ImageBuffer.OVERTAKEN_SECONDS, requests_module.CATCH_UP_SECONDS
    ImageBuffer.OVERTAKEN_SECONDS = requests_module.CATCH_UP_SECONDS = WAITING_SECONDS
    try:
        yield
    finally:
        ImageBuffer.OVERTAKEN_SECONDS, requests_module.CATCH_UP_SECONDS = before


class _Publisher:
    """Records the last message; every message must be serialisable."""

    def __init__(self, kind: type, changed: threading.Condition) -> None:
        self.kind = kind
        self.last: Any = None
        self.count = 0
        self.wanted = False
        self._changed = changed

    def publish(self, message: Any) -> None:
        assert isinstance(message, self.kind)
        serialize_message(message)
        with self._changed:
            self.last = message
            self.count += 1
            self._changed.notify_all()

    def get_subscription_count(self) -> int:
        return int(self.wanted)

    def wait_for_all_acked(self, timeout: Any) -> bool:
        return True


class _FakeNode:
    """What `Publishers` needs of a node, and a logger."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.topics: dict[str, _Publisher] = {}
        self.errors: list[str] = []

    def create_publisher(self, kind: type, topic: str, qos: Any, **_: Any) -> _Publisher:
        self.topics[topic] = _Publisher(kind, self.changed)
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


class PipelineFixture:
    """A running pipeline with targets; `expected` are those that must exist after the requests so far."""

    def __init__(self) -> None:
        self.node = _FakeNode()
        self.tracker = ScriptedTracker()
        self.settings: dict[str, Any] = {row.name: row.default for row in NODE_PARAMETERS}
        self.settings.update(max_targets=MAX_TARGETS, target_width=0.5, history_seconds=5.0)
        self.positioner = PositionEstimator(target_width=0.5)
        self.positioner.on_camera_info(camera_info((WIDTH, HEIGHT), [60.0, 0, 32.0, 0, 60.0, 24.0, 0, 0, 1.0]))
        self.history = ImageBuffer(self.settings["history_seconds"], 2**20)
        self.statistics = Statistics()
        node: Any = self.node
        drops, enabled = DropLog(), threading.Event()
        enabled.set()
        self.pipeline = Pipeline(
            self.tracker,
            Publishers(node, self.positioner, self.settings, drops),
            self.history,
            node,
            self.settings,
            self.statistics,
            ImageDecoder(self.settings),
            enabled,
        )
        self.requests = Requests(self.pipeline, self.settings, node, lambda: "nobody publishes", drops)
        self.detector = DetectorInput(self.pipeline, self.requests, self.settings, node)
        self.expected: set[str] = set()
        self.planned_errors: tuple[str, ...] = ()
        """Errors that the tracker raises on purpose; other tracebacks in the log are failures."""
        self._images = 0
        self.pipeline.start()

    def next_image(self) -> Image:
        """Return a valid image, 0.1 s after the one before."""
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
        """Process an image and return the states of the targets in it, by name."""
        targets = self.node.topics["targets"]
        before = targets.count

        def changed() -> bool:
            return targets.count > before and targets.last.header == image.header

        self.pipeline.receive(image)
        with self.node.changed:
            assert self.node.changed.wait_for(changed, PATIENCE_SECONDS), f"no result for an image; {self.trouble}"
            return {state.id: state for state in targets.last.targets}

    def settle(self) -> None:
        """Wait until every target has caught up."""
        end = time.monotonic() + PATIENCE_SECONDS
        while self.pipeline.late:
            assert time.monotonic() < end, f"still late: {self.pipeline.late}; {self.trouble}"
            time.sleep(0.0005)

    def ask(self, job: Callable[[], Any]) -> Any:
        """Return the result of a request, None if it is refused with a reason."""
        try:
            return job()
        except RequestRefused as error:
            assert 10 < len(str(error)) <= 1000, f"no reason, or one that is too long: {str(error)[:5000]!r}"
            return None

    def take(self, stamp: Time, bbox: BoundingBox2D, normalized: bool, target_id: str) -> bool:
        """Request a target and return whether it was accepted; then it must exist from now on."""
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
        """Request to drop a target, or all; return whether that was done."""
        said = self.ask(lambda: self.requests.drop_target(target_id))
        if said is not None:
            self.expected -= {target_id} if target_id else self.expected.copy()
        return said is not None

    def check(self) -> None:
        """Assert that exactly the expected targets exist, and that each is TRACKING in the next valid image.

        :raises AssertionError: if not.
        """
        assert set(self.pipeline.targets) == self.expected, f"{self.pipeline.targets}, not {self.expected}"
        self.show(self.next_image())
        self.settle()
        states = self.show(self.next_image())
        assert set(states) == self.expected, f"{sorted(states)}, not {self.expected}; {self.trouble}"
        for name, state in states.items():
            assert state.state == State.TRACKING, f"{name!r} is {state.state}; {self.trouble}"
            box, published = self.tracker.boxes[name], state.bbox
            assert (published.size_x, published.size_y) == box[2:], f"{name!r} is at {published}, not {box}"
        for error in self.node.errors:
            assert "Traceback" not in error or any(planned in error for planned in self.planned_errors), error
        self.node.errors.clear()

    def close(self) -> None:
        """Stop the pipeline: at once, and with a message without targets."""
        assert not self.pipeline.exit_cause, self.pipeline.exit_cause
        assert self.pipeline.stop(PATIENCE_SECONDS), "the thread does not stop"
        assert self.pipeline.targets == () and not self.node.topics["targets"].last.targets
        self.statistics.snapshot()

    @property
    def trouble(self) -> str:
        """The errors in the log."""
        return "; ".join([self.pipeline.exit_cause, *self.node.errors])


@contextmanager
def pipeline_fixture() -> Iterator[PipelineFixture]:
    """Run a pipeline that tracks two targets."""
    fixture = PipelineFixture()
    try:
        for _ in range(3):
            fixture.show(fixture.next_image())
        for name in ("cup", "böll"):
            assert fixture.take(Time(), bounding_box(*BOX), False, name)
        yield fixture
    finally:
        ended = fixture.pipeline.stop(PATIENCE_SECONDS)
        assert ended, "the thread does not stop"


def bounding_box(x: float, y: float, w: float, h: float) -> BoundingBox2D:
    """Return (x, y, w, h) as a message."""
    bbox = BoundingBox2D(size_x=float(w), size_y=float(h))
    bbox.center.position.x, bbox.center.position.y = x + w / 2, y + h / 2
    return bbox


def good_box(draw: Random) -> tuple[float, float, float, float]:
    """Return a valid box."""
    w, h = draw.uniform(4.0, 30.0), draw.uniform(4.0, 20.0)
    return draw.uniform(0.0, WIDTH - w), draw.uniform(0.0, HEIGHT - h), w, h


def odd_stamp(draw: Random) -> Time:
    """Return any stamp that fits into its message; not all are valid times."""
    near = draw.random() < 0.3
    sec = draw.randint(999, 1003) if near else odd_int(draw, -(2**31), 2**31 - 1)
    return Time(sec=sec, nanosec=odd_int(draw, 0, 2**32 - 1))


def known_stamp(draw: Random, fixture: PipelineFixture) -> Time:
    """Return zero, or the stamp of a held image, sometimes slightly off."""
    newest = fixture._images
    at = 1000 * NANOSECONDS + draw.randint(max(1, newest - 5), newest) * 100_000_000
    at += draw.choice((0, 0, 0, 900_000, -900_000, 10_000_000))
    return draw.choice((Time(), Time(sec=at // NANOSECONDS, nanosec=at % NANOSECONDS)))


def drawn_request(draw: Random, fixture: PipelineFixture) -> tuple[Time, BoundingBox2D, bool, str]:
    """Return a request for a target, mostly with one error."""
    normalized = draw.random() < 0.3
    scale = (WIDTH, HEIGHT, WIDTH, HEIGHT) if normalized else (1, 1, 1, 1)
    bbox = bounding_box(*(value / by for value, by in zip(good_box(draw), scale, strict=True)))
    stamp, name = known_stamp(draw, fixture), draw.choice(("", "cup", "böll", "third"))
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
