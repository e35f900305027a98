# SPDX-License-Identifier: Apache-2.0
"""Traffic for the node under test: a camera with faults, and a watcher of the results."""

from __future__ import annotations

import array
import math
import random
import threading
import time
from collections import OrderedDict, deque
from typing import Any

import cv2
import numpy as np
from harness.ros_harness import BEST_EFFORT, LATCHED, MANY, RELIABLE, State, TargetState, TargetStateArray, is_zero
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from vision_msgs.msg import Detection2DArray

from dimp_ros.images.stamps import NANOSECONDS, stamp_ns
from soak.report import SoakReport, TargetLedger

WIDTH, HEIGHT, RATE = 320, 240, 30.0
MAX_TARGETS = 4
SAMPLES = {"bgr8": 3, "rgb8": 3, "mono8": 1, "bgra8": 4, "yuv422": 2, "bayer_rggb8": 1, "mono16": 2, "no such": 3}
"""Bytes per pixel of the encodings that the camera alternates between."""
CLOCK_STEP = NANOSECONDS // 20
"""By which the machine's clock may be set, or be slewed, while an image is worked on; nanoseconds."""
SIZES = ((WIDTH, HEIGHT), (WIDTH // 2, HEIGHT // 2), (240, 200), (WIDTH, 64))


def clock_offset() -> int:
    """Return how far the system's clock is ahead of the steady one, nanoseconds; another value once it was set."""
    return time.time_ns() - time.monotonic_ns()


class SoakCamera:
    """Publishes 30 images a second; changes size and encoding, pauses, damages images, and sets its clock."""

    def __init__(self, seed: int, report: SoakReport) -> None:
        self._random = random.Random(seed)
        self._report = report
        self.node = Node("soak_camera")
        self._images = self.node.create_publisher(Image, "image", BEST_EFFORT)
        self._infos = self.node.create_publisher(CameraInfo, "camera_info", BEST_EFFORT)
        noise = np.random.default_rng(seed).integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
        self._ground = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        self._patch = np.random.default_rng(seed + 1).integers(0, 255, (40, 48, 3), dtype=np.uint8)
        self._size, self._encoding, self._phase = SIZES[0], "bgr8", "normal"
        self._phase_ends = 0.0
        self._offset = 0
        self._number = 0
        self.box = (0.0, 0.0, 48.0, 40.0)
        """Where the patch is, (x, y, w, h) in pixels."""
        self.stamps: deque[Any] = deque(maxlen=90)
        """Stamps of the last images."""
        self.sent: OrderedDict[int, tuple[int, int]] = OrderedDict()
        """When the image of a stamp was published, and `clock_offset` then; all in nanoseconds."""

    def run(self, stop: threading.Event) -> None:
        """Publish until ``stop`` is set."""
        due = time.monotonic()
        while not stop.is_set():
            due = max(due + 1 / RATE, time.monotonic() - 0.2)
            self._change_phase()
            if self._phase != "paused":
                self._publish()
            time.sleep(max(0.0, due - time.monotonic()))

    def _change_phase(self) -> None:
        now = time.monotonic()
        if now < self._phase_ends:
            return
        choose = self._random.choice
        self._size, self._encoding = SIZES[0], "bgr8"
        self._phase = "normal"
        if self._phase_ends and self._random.random() < 0.5:
            self._phase = choose(("paused", "size", "encoding", "damaged", "clock", "no clock"))
            self._report.count(f"camera {self._phase}")
        self._phase_ends = now + self._random.uniform(0.3, 2.0 if self._phase != "normal" else 6.0)
        if self._phase == "size":
            self._size = choose(SIZES[1:])
        elif self._phase == "encoding":
            self._encoding = choose(list(SAMPLES)[1:])
        elif self._phase == "clock":
            self._offset = choose((0, 10, -10, 3600, -0.05)) * NANOSECONDS

    def _publish(self) -> None:
        self._number += 1
        angle = self._number / 60
        x, y = round(136 + 90 * math.cos(angle)), round(100 + 70 * math.sin(1.3 * angle))
        picture = self._ground.copy()
        picture[y : y + 40, x : x + 48] = self._patch
        width, height = self._size
        message = Image(width=width, height=height, encoding=self._encoding)
        message.step = width * SAMPLES[self._encoding]
        if self._encoding == "bgr8":
            data = np.ascontiguousarray(picture[:height, :width]).tobytes()
        else:
            data = (picture.tobytes() * 2)[: message.step * height]
        if self._phase == "damaged":
            data = data[: self._random.randrange(len(data))]
        message.data = array.array("B", data)
        now = time.time_ns()
        stamp = 0 if self._phase == "no clock" else int(now + self._offset)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, NANOSECONDS)
        message.header.frame_id = "camera_optical"
        self.box = (float(x), float(y), 48.0, 40.0)
        if stamp:
            self.stamps.append(message.header.stamp)
            self.sent[stamp] = now, clock_offset()
            while len(self.sent) > 600:
                self.sent.popitem(last=False)
        self._images.publish(message)
        if self._number % 10 == 0:
            info = CameraInfo(header=message.header, width=width, height=height)
            info.k = [300.0, 0.0, width / 2, 0.0, 300.0, height / 2, 0.0, 0.0, 1.0]
            self._infos.publish(info)


class ResultWatcher:
    """Compares all results with the requests and with the time of the image."""

    def __init__(self, camera: SoakCamera, ledger: TargetLedger, report: SoakReport) -> None:
        self._camera, self._ledger, self._report = camera, ledger, report
        self.node = Node("soak_watcher")
        self.node.create_subscription(TargetStateArray, "targets", self._on_targets, LATCHED)
        self.node.create_subscription(TargetState, "target", self._on_target, MANY)
        self.node.create_subscription(Detection2DArray, "detections", self._on_detections, RELIABLE)

    def run(self, stop: threading.Event) -> None:
        """Read until ``stop`` is set."""
        executor = SingleThreadedExecutor()
        executor.add_node(self.node)
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.2)
        executor.shutdown()

    def _on_targets(self, message: TargetStateArray, info: Any) -> None:
        published = info["source_timestamp"]
        self._report.count("message on targets")
        names = [state.id for state in message.targets]
        if len(set(names)) != len(names) or len(names) > MAX_TARGETS:
            self._report.violation("targets", f"{names} are too many or repeated")
        for state in message.targets:
            self._check(state)
        for wrong in self._ledger.contradictions(published, names):
            self._report.violation("targets", wrong)
        sent = self._camera.sent.pop(stamp_ns(message.header.stamp), None)
        if sent is None:  # not the first message about this image
            return
        if abs(clock_offset() - sent[1]) > CLOCK_STEP:
            self._report.count("clock of the machine was set")
        else:
            self._report.time("age", (published - sent[0]) / NANOSECONDS)

    def _on_target(self, message: TargetState, info: Any) -> None:
        self._report.count("message on target")
        self._check(message)
        if message.id and message.state != State.UNINITIALIZED:
            wrong = self._ledger.contradictions(info["source_timestamp"], [message.id])
            for text in wrong:
                if "missing" not in text:  # this message is about one target
                    self._report.violation("target", text)

    def _on_detections(self, message: Detection2DArray, info: Any) -> None:
        self._report.count("message on detections")
        names = [one.id for one in message.detections]
        for text in self._ledger.contradictions(info["source_timestamp"], names):
            if "missing" not in text:  # it may be LOST
                self._report.violation("detections", text)
        if any(is_zero(one.bbox) for one in message.detections):
            self._report.violation("detections", f"a box without extent among {names}")

    def _check(self, state: TargetState) -> None:
        """Check one state by itself."""
        numbers = (state.confidence, state.peak, state.distractor_ratio, state.seconds_since_seen, state.age)
        if not all(map(math.isfinite, numbers)) or not 0.0 <= state.confidence <= 1.0:
            self._report.violation("state", f"numbers {numbers} of {state.id}")
        in_sight = state.state in (State.TRACKING, State.UNCERTAIN)
        if is_zero(state.bbox) == in_sight or (not in_sight and state.confidence):
            self._report.violation("state", f"{state.id} has state {state.state}, box {state.bbox}")
