# SPDX-License-Identifier: Apache-2.0
"""Shared by the ROS tests: a tracker node over real DDS, a client, and a scripted tracker."""

from __future__ import annotations

import array
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed: ROS tests need a ROS home")
pytest.importorskip("dimp_ros.msg", reason="the interfaces are not built: ROS tests need `make setup` or colcon")

from builtin_interfaces.msg import Time  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from rclpy.task import Future  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402
from vision_msgs.msg import BoundingBox2D, Detection2DArray  # noqa: E402

from dimp_ros.geometry.box import Box  # noqa: E402
from dimp_ros.images.picture import Picture  # noqa: E402
from dimp_ros.msg import TargetState, TargetStateArray  # noqa: E402
from dimp_ros.node.tracker_node import TrackerNode  # noqa: E402
from dimp_ros.ros_utils.executor import FairExecutor  # noqa: E402
from dimp_ros.srv import DropTarget, InitTarget  # noqa: E402
from dimp_ros.tracker.result import TargetState as State  # noqa: E402
from dimp_ros.tracker.result import TrackResult  # noqa: E402
from harness.tracker_double import TrackerDouble  # noqa: E402

WAIT = 15.0
"""Timeout in seconds for what takes milliseconds on an idle machine."""

WIDTH, HEIGHT = 64, 48
BOX = (20.0, 10.0, 16.0, 12.0)
RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)

MANY = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""For `target`, on which there is a message for each target of an image."""


def wait_until(condition: Callable[[], Any], what: str, timeout: float = WAIT) -> Any:
    """Return the first true value of ``condition``; fail the test if there is none in time."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    pytest.fail(f"not within {timeout:g} s: {what}")


def numbered_image(number: int, *, width: int = WIDTH, height: int = HEIGHT, encoding: str = "bgr8") -> Image:
    """Return image ``number``: its stamp is ``number`` x 0.1 s after 1000 s, its pixels all say ``number``."""
    channels = {"bgr8": 3, "rgb8": 3, "mono8": 1, "bgra8": 4, "rgba8": 4}.get(encoding, 3)
    image = Image(width=width, height=height, encoding=encoding, step=width * channels)
    image.header.frame_id = "camera_optical"
    image.header.stamp = stamp_of(number)
    image.data = array.array("B", bytes([number % 256]) * (image.step * height))
    return image


def stamp_of(number: int) -> Time:
    """Return the stamp of `numbered_image`."""
    return Time(sec=1000 + number // 10, nanosec=number % 10 * 100_000_000)


def number_of(picture: Picture) -> int:
    """Return the number of a `numbered_image`."""
    return int(picture.region(0, 0, 1, 1).flat[0])


class ScriptedTracker(TrackerDouble):
    """Records its inputs and returns what the test has set, as slowly as it has set."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds = seconds
        self.init_seconds = 0.0
        self.state = State.TRACKING
        self.failure: Exception | None = None
        self.inits: list[tuple[int, tuple[float, ...], str]] = []
        self.points: list[tuple[int, tuple[float, float]]] = []
        """Number of the image and point of each `find_box`."""
        self.updates: list[int] = []
        self.busy = threading.Event()
        self.dropped: list[str | None] = []
        self.states: dict[str, State] = {}
        """States of single targets, other than ``state``."""
        self.asked: list[tuple[int | str, ...]] = []
        """Number of the image and names of the targets of each update."""

    def init(self, image: Picture, box: Sequence[float], *, target_id: str = "0") -> TrackResult:
        """Start the target, unless the test has set a failure."""
        time.sleep(self.init_seconds)
        if self.failure is not None:
            raise self.failure
        result = super().init(image, box, target_id=target_id)
        self.inits.append((number_of(image), tuple(box), target_id))
        return result

    def find_box(self, image: Picture, point: tuple[float, float]) -> Box:
        """Record it, and return the object at the point."""
        self.points.append((number_of(image), point))
        return super().find_box(image, point)

    def update_all(self, image: Picture, only: Collection[str] | None = None) -> dict[str, TrackResult]:
        """Return the states that the test has set."""
        self.busy.set()
        time.sleep(self.seconds)
        self.busy.clear()
        if self.failure is not None:
            raise self.failure
        self.updates.append(number_of(image))
        self.asked.append((number_of(image), *sorted(self.boxes if only is None else only)))
        return super().update_all(image, only)

    def find(self, image: Picture, name: str) -> TrackResult:
        """Return the target where it was."""
        return self.result(name, self.states.get(name, self.state))

    def drop(self, target_id: str | None = None) -> None:
        """Record it."""
        self.dropped.append(target_id)
        super().drop(target_id)


class Client:
    """A client: publishes images, records the tracker node's messages, calls its services."""

    def __init__(self, image_qos: QoSProfile = RELIABLE, node_name: str = "tracker_node") -> None:
        self.node = Node("client")
        self.images = self.node.create_publisher(Image, "image", image_qos)
        self.states: list[TargetState] = []
        self.detections: list[Detection2DArray] = []
        self.arrays: list[TargetStateArray] = []
        self.node.create_subscription(TargetState, "target", self.states.append, MANY)
        self.node.create_subscription(TargetStateArray, "targets", self.arrays.append, LATCHED)
        self.node.create_subscription(Detection2DArray, "detections", self.detections.append, RELIABLE)
        self._init = self.node.create_client(InitTarget, f"{node_name}/init_target")
        self._drop = self.node.create_client(DropTarget, f"{node_name}/drop_target")
        self._enable = self.node.create_client(SetBool, f"{node_name}/set_enabled")

    def _call(self, client: Any, request: Any, timeout: float = WAIT) -> Any:
        assert client.wait_for_service(timeout_sec=WAIT), f"no service {client.srv_name}"
        future = client.call_async(request)
        wait_until(future.done, f"answer of {client.srv_name}", timeout)
        return future.result()

    def init(
        self,
        box: Sequence[float] = BOX,
        *,
        stamp: Time | None = None,
        target_id: str = "",
        normalized: bool = False,
        drop_number: int = 0,
    ) -> Any:
        """Ask for the target inside ``box`` (x, y, w, h)."""
        return self._call(self._init, self._start(box, stamp, target_id, normalized, drop_number))

    def init_later(self, target_id: str) -> Any:
        """Ask for a target, and return the future of the answer."""
        assert self._init.wait_for_service(timeout_sec=WAIT)
        return self._init.call_async(self._start(BOX, None, target_id, False, 0))

    @staticmethod
    def _start(
        box: Sequence[float], stamp: Time | None, target_id: str, normalized: bool, drop_number: int
    ) -> InitTarget.Request:
        bbox = BoundingBox2D(size_x=float(box[2]), size_y=float(box[3]))
        bbox.center.position.x, bbox.center.position.y = box[0] + box[2] / 2, box[1] + box[3] / 2
        request = InitTarget.Request(stamp=stamp or Time(), bbox=bbox, normalized=normalized, id=target_id)
        request.drop_number = drop_number
        return request

    def drop(self, target_id: str = "", timeout: float = WAIT) -> Any:
        """Ask to drop the target."""
        return self._call(self._drop, DropTarget.Request(id=target_id), timeout)

    def set_enabled(self, enabled: bool, timeout: float = WAIT) -> Any:
        """Switch inference on or off."""
        return self._call(self._enable, SetBool.Request(data=enabled), timeout)

    def state_of(self, image: Image) -> TargetState:
        """Wait for the state under the header of ``image`` and return the last one."""

        def found() -> list[TargetState]:
            return [state for state in list(self.states) if state.header == image.header]

        return wait_until(found, f"state for the image of {image.header.stamp}")[-1]

    def targets_of(self, image: Image) -> dict[str, TargetState]:
        """Wait for the states of all targets under the header of ``image`` and return the last ones, by name."""

        def found() -> list[TargetStateArray]:
            return [array for array in list(self.arrays) if array.header == image.header]

        last = wait_until(found, f"targets of the image of {image.header.stamp}")[-1]
        return {state.id: state for state in last.targets}

    def detections_of(self, image: Image) -> Detection2DArray:
        """Wait for the detections under the header of ``image`` and return the last ones."""

        def found() -> list[Detection2DArray]:
            return [array for array in list(self.detections) if array.header == image.header]

        return wait_until(found, f"detections for the image of {image.header.stamp}")[-1]

    def show(self, image: Image) -> TargetState:
        """Publish ``image`` and return the result for it."""
        self.images.publish(image)
        end = time.monotonic() + 3.0
        while time.monotonic() < end and not any(state.header == image.header for state in list(self.states)):
            time.sleep(0.002)
        if time.monotonic() >= end:  # the tracker subscribes best-effort: an image may get lost
            self.images.publish(image)
        return self.state_of(image)

    def wait_for(self, tracker: Node) -> None:
        """Wait until ``tracker`` receives the images and this client its messages."""
        wait_until(lambda: self.images.get_subscription_count() > 0, "image subscription of the tracker")

        def connected() -> bool:
            outputs = [p for p in tracker.publishers if p.topic_name in ("/target", "/detections")]
            return len(outputs) == 2 and all(output.get_subscription_count() > 0 for output in outputs)

        wait_until(connected, "connection of the tracker's outputs")
        wait_until(lambda: self.states, "first state")


def is_zero(bbox: BoundingBox2D) -> bool:
    """Whether a box is the one of no target."""
    return bbox.size_x == bbox.size_y == bbox.center.position.x == bbox.center.position.y == 0.0


def start_target(client: Client, number: int = 1, target_id: str = "") -> TargetState:
    """Publish image ``number``, start a target on it, and return its first state."""
    image = numbered_image(number)
    client.show(image)
    answer = client.init(target_id=target_id)
    assert answer.success, answer.message
    return wait_until(
        lambda: next((s for s in list(client.states) if s.header == image.header and s.state == State.TRACKING), None),
        "state of the new target",
    )


@contextmanager
def context() -> Iterator[None]:
    """Initialise rclpy, and shut it down."""
    rclpy.init()
    try:
        yield
    finally:
        rclpy.try_shutdown()


THREADS = 6


@contextmanager
def spinning(*nodes: Node) -> Iterator[None]:
    """Spin ``nodes`` in a thread, and destroy them in the end."""
    executor = FairExecutor(THREADS)
    for node in nodes:
        executor.add_node(node)
    done: Future[None] = Future()
    thread = threading.Thread(target=executor.spin_until_future_complete, args=(done,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        for node in nodes:
            if isinstance(node, TrackerNode):
                node.close()
        # rclpy's shutdown() destroys what the spinning thread waits on and callbacks trigger in their end, without
        # waiting for either: a bare InvalidHandle comes of that.
        done.set_result(None)
        thread.join()
        executor.finish_callbacks()
        executor.shutdown()
        for node in nodes:
            node.destroy_node()


def tracker_node(tracker: Any, **parameters: Any) -> TrackerNode:
    """Return a node around ``tracker`` (or around what a factory makes) with parameters set."""
    overrides = [Parameter(name, value=value) for name, value in parameters.items()]
    factory = tracker if callable(tracker) else lambda _parameters: tracker
    return TrackerNode(tracker_factory=factory, parameter_overrides=overrides)


@contextmanager
def running(tracker: Any, image_qos: QoSProfile = RELIABLE, **parameters: Any) -> Iterator[Client]:
    """Run a tracker node around ``tracker`` and hand out a client that is connected to it."""
    with context():
        node = tracker_node(tracker, **parameters)
        client = Client(image_qos)
        with spinning(node, client.node):
            client.wait_for(node)
            yield client
