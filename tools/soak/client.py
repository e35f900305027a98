# SPDX-License-Identifier: Apache-2.0
"""A client of the node under test: valid and invalid requests, and a check of each answer."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from harness.ros_harness import BEST_EFFORT, TargetState, TargetStateArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool
from vision_msgs.msg import BoundingBox2D, Detection2D, Detection2DArray, ObjectHypothesisWithPose

from dimp_ros.srv import DropTarget, InitTarget
from soak.report import SoakReport, TargetLedger
from soak.traffic import HEIGHT, MAX_TARGETS, WIDTH, SoakCamera

ANSWER_SECONDS = {"init": 10.0, "drop": 3.0, "enable": 3.0, "parameters": 3.0, "lifecycle": 25.0}
"""Time limits of answers; an init waits for its image, for the tracker, and for the target to catch up."""
LATE_SECONDS = 10.0
"""Wait for a late answer, to tell it from a lost one."""


class SoakClient:
    """Sends random requests, one after the other, and checks each answer. Runs in a thread of its own."""

    def __init__(self, number: int, seed: int, camera: SoakCamera, ledger: TargetLedger, report: SoakReport) -> None:
        self._number = number
        self._random = random.Random(seed * 1000 + number)
        self._camera, self._ledger, self._report = camera, ledger, report
        self.node = Node(f"soak_client_{number}")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        kinds = {
            "init": (InitTarget, "init_target"),
            "drop": (DropTarget, "drop_target"),
            "enable": (SetBool, "set_enabled"),
            "parameters": (SetParametersAtomically, "set_parameters_atomically"),
            "lifecycle": (ChangeState, "change_state"),
        }
        self._clients = {k: self.node.create_client(t, f"tracker_node/{name}") for k, (t, name) in kinds.items()}
        self._detections = self.node.create_publisher(Detection2DArray, "init_detections", BEST_EFFORT)
        self._subscriptions: list[Any] = []

    def run(self, stop: threading.Event) -> None:
        """Send requests until ``stop`` is set."""
        acts: dict[Callable[[], None], float] = {
            self._init: 8,
            self._init_invalid: 3,
            self._drop: 3,
            self._drop_all: 0.3,
            self._drop_unknown: 1,
            self._set_parameters: 2,
            self._set_invalid_parameters: 2,
            self._subscribe: 4,
            self._send_detections: 2,
            self._pause: 0.5 if self._number == 0 else 0,
            self._deactivate: 0.4 if self._number == 1 else 0,
        }
        while not stop.is_set():
            act = self._random.choices(list(acts), list(acts.values()))[0]
            self._report.count(act.__name__.strip("_"))
            act()
            self._wait(self._random.uniform(0.05, 0.6))
        self._executor.shutdown()

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def _call(self, kind: str, request: Any) -> Any:
        """Return the answer; report a violation if it is late, and return None if it does not come at all."""
        begin, limit = time.monotonic(), ANSWER_SECONDS[kind]
        future = self._clients[kind].call_async(request)
        self._executor.spin_until_future_complete(future, timeout_sec=limit)
        if not future.done():
            self._executor.spin_until_future_complete(future, timeout_sec=LATE_SECONDS)
            waited = time.monotonic() - begin
            came = f"the answer to {kind} came after {waited:.2f} s" if future.done() else f"no answer to {kind}"
            self._report.violation("answer", f"{came}; {limit:g} s are allowed")
        if not future.done():
            self._clients[kind].remove_pending_request(future)
            return None
        self._report.time(f"answer to {kind}", time.monotonic() - begin)
        return future.result()

    def _init(self) -> None:
        """Request a new or a known target, in the newest image or one of the last seconds."""
        name = f"{self._number}-{self._random.randrange(4)}"
        stamps = list(self._camera.stamps)
        stamp = self._random.choice(stamps[-60:]) if stamps and self._random.random() < 0.5 else None
        x, y, w, h = self._camera.box
        if self._random.random() < 0.5:
            w, h = self._random.uniform(8, 90), self._random.uniform(8, 90)
            x, y = self._random.uniform(-0.4 * w, WIDTH - 0.6 * w), self._random.uniform(-0.4 * h, HEIGHT - 0.6 * h)
        self._ask(name, (x, y, w, h), stamp)

    def _ask(self, name: str, box: tuple[float, ...], stamp: Any = None, theta: float = 0.0) -> Any:
        bbox = BoundingBox2D(size_x=box[2], size_y=box[3])
        bbox.center.position.x, bbox.center.position.y, bbox.center.theta = (
            box[0] + box[2] / 2,
            box[1] + box[3] / 2,
            theta,
        )
        request = InitTarget.Request(bbox=bbox, id=name)
        if stamp is not None:
            request.stamp = stamp
        self._ledger.init_begins(name, time.time_ns())
        answer = self._call("init", request)
        success = answer is not None and answer.success
        self._ledger.init_ends(name, time.time_ns() if answer is not None else math.inf, success)
        if answer is not None:
            self._report.count(f"init {'accepted' if success else 'refused: ' + _reason(answer.message)}")
        return answer

    def _init_invalid(self) -> None:
        """Send an invalid request; an existing target of that name stays."""
        name = f"{self._number}-{self._random.randrange(4)}"
        nan, inf = float("nan"), float("inf")
        boxes = ((nan, 1, 9, 9), (1, 1, inf, 9), (1, 1, 0, 9), (1, 1, 9, -9), (900, 10, 9, 9), (1e30, 1e30, 9, 9))
        which = self._random.randrange(3)
        if which == 0:
            box = tuple(map(float, self._random.choice(boxes)))
            answer = self._ask(name, box)
        elif which == 1:
            answer = self._ask(name, self._camera.box, theta=0.3)
        else:
            stamps = list(self._camera.stamps)
            stamp = type(stamps[-1])(sec=stamps[-1].sec - 1000, nanosec=123) if stamps else None
            answer = self._ask(name, self._camera.box, stamp) if stamp else None
        if answer is not None and (answer.success or not answer.message):
            self._report.violation("answer", f"an invalid init was accepted: {answer.message!r}")

    def _drop(self) -> None:
        self._drop_named(f"{self._number}-{self._random.randrange(4)}")

    def _drop_all(self) -> None:
        self._drop_named("")

    def _drop_named(self, name: str) -> None:
        self._ledger.drop_begins(name or None, time.time_ns())
        answer = self._call("drop", DropTarget.Request(id=name))
        success = answer is not None and answer.success
        self._ledger.drop_ends(name or None, time.time_ns(), success)
        if answer is not None:
            self._report.count(f"drop {'done' if success else 'refused'}")

    def _drop_unknown(self) -> None:
        answer = self._call("drop", DropTarget.Request(id="nobody has this name"))
        if answer is not None and (answer.success or not answer.message):
            self._report.violation("answer", f"an unknown target was dropped: {answer.message!r}")

    def _pause(self) -> None:
        """Disable tracking, and enable it again."""
        self._call("enable", SetBool.Request(data=False))
        self._wait(self._random.uniform(0.1, 0.8))
        for _ in range(100):  # refused while another client has deactivated the node, which stays paused
            answer = self._call("enable", SetBool.Request(data=True))
            if answer is not None and answer.success:
                return
            self._wait(0.1)
        self._report.violation("answer", "tracking could not be enabled again")

    def _deactivate(self) -> None:
        """Deactivate the node for a moment, which drops all targets."""
        self._ledger.drop_begins(None, time.time_ns())
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
            answer = self._call("lifecycle", ChangeState.Request(transition=Transition(id=transition)))
            if answer is not None and not answer.success:
                self._report.violation("answer", f"transition {transition} failed")
            if transition == Transition.TRANSITION_DEACTIVATE:
                self._ledger.drop_ends(None, time.time_ns(), True)
                self._wait(self._random.uniform(0.1, 1.0))

    def _set_parameters(self) -> None:
        uniform, choice = self._random.uniform, self._random.choice
        good = {
            "catch_up_images": self._random.randint(1, 5),
            "wait_for_next": self._random.choice((0.0, 0.5, 1.0)),
            "no_image_warning": uniform(0.5, 9),
            "detector.min_score": uniform(0.1, 0.9),
            "detector.rule": choice(("best_score", "nearest_center", "largest")),
            "diagnostics_period": uniform(0.5, 2),
            "request_timeout": uniform(3, 8),
            "tracker.not_found_threshold": uniform(0.1, 0.3),
        }
        self._set(dict(self._random.sample(list(good.items()), self._random.randint(1, 3))), True)

    def _set_invalid_parameters(self) -> None:
        wrong: tuple[tuple[str, Any], ...] = (
            ("catch_up_images", 0),
            ("catch_up_images", "many"),
            ("detector.min_score", float("nan")),
            ("detector.rule", "loudest"),
            ("max_targets", MAX_TARGETS + 1),
            ("model", "another"),
            ("autostart", False),
            ("no such parameter", 1),
            ("tracker.not_found_threshold", -5.0),
        )
        self._set({"detector.min_score": 0.5, **dict([self._random.choice(wrong)])}, False)

    def _set(self, values: dict[str, Any], good: bool) -> None:
        request = SetParametersAtomically.Request()
        request.parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        answer = self._call("parameters", request)
        if answer is not None and answer.result.successful is not good:
            self._report.violation("answer", f"setting {values} was answered with {answer.result}")

    def _subscribe(self) -> None:
        """Create a subscription with a random QoS, or destroy one."""
        if len(self._subscriptions) >= 3 or (self._subscriptions and self._random.random() < 0.4):
            self.node.destroy_subscription(self._subscriptions.pop(0))
            return
        topics = (("debug_image", Image), ("target", TargetState), ("targets", TargetStateArray))
        topic, kind = self._random.choice((*topics, ("detections", Detection2DArray)))
        qos = QoSProfile(
            depth=self._random.choice((1, 5, 50)),
            reliability=self._random.choice((ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT)),
            durability=self._random.choice((DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL)),
        )
        self._subscriptions.append(self.node.create_subscription(kind, topic, lambda _: None, qos))

    def _send_detections(self) -> None:
        """Publish detections, some of them invalid."""
        message = Detection2DArray()
        stamps = list(self._camera.stamps)
        if stamps:
            message.header.stamp = self._random.choice(stamps[-10:])
        for _ in range(self._random.randrange(4)):
            found = Detection2D()
            x, y, w, h = self._camera.box
            found.bbox.center.position.x, found.bbox.center.position.y = x + w / 2, y + h / 2
            found.bbox.size_x, found.bbox.size_y = self._random.choice(((w, h), (float("nan"), h), (-w, h), (1e9, 1e9)))
            hypothesis = ObjectHypothesisWithPose()
            hypothesis.hypothesis.class_id = "thing"
            hypothesis.hypothesis.score = self._random.choice((0.95, 0.3, float("nan"), float("inf")))
            found.results = [hypothesis]
            message.detections.append(found)
        self._detections.publish(message)


def _reason(message: str) -> str:
    """Return the kind of a refusal, without its numbers and names, for counting."""
    known = {
        "max_targets": "too many targets",
        "disabled": "disabled",
        "not active": "not active",
        "no image": "image not held",
        "images from": "image not held",
        "theta": "rotated",
        "data has": "the image is damaged",
        "not answered": "the tracker took too long",
        "being stopped": "being stopped",
        "nothing to follow": "nothing to follow",
    }
    return next((reason for part, reason in known.items() if part in message), message.split(";")[0][:40])
