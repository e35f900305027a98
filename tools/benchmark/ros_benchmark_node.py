# SPDX-License-Identifier: Apache-2.0
"""The process that is measured: a tracker node, and notes of where an image's time goes; its tracker may do nothing.

Nothing of the node is changed for it: functions are wrapped from outside, which costs each some microseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from harness.tracker_double import TrackerDouble
from rclpy.executors import Executor
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image

from dimp_ros.images.picture import Picture
from dimp_ros.node.pipeline import Pipeline
from dimp_ros.node.publishers import Publishers
from dimp_ros.node.tracker_loader import load_tracker
from dimp_ros.node.tracker_node import main
from dimp_ros.ros_utils import messages
from dimp_ros.ros_utils.image_decoder import ImageDecoder
from dimp_ros.tracker.result import TrackResult

MOST_IMAGES = 20000


class NullTracker(TrackerDouble):
    """Decodes the whole image, sleeps, and finds every target where it was."""

    def __init__(self, seconds: float, notes: Notes) -> None:
        super().__init__()
        self._seconds = seconds
        self._update = notes.timed("inference", self._find_all)

    def update_all(self, image: Picture, only: Collection[str] | None = None) -> dict[str, TrackResult]:
        """Find targets; the time is noted."""
        results: dict[str, TrackResult] = self._update(image, only)
        return results

    def _find_all(self, image: Picture, only: Collection[str] | None) -> dict[str, TrackResult]:
        if self._seconds:
            time.sleep(self._seconds)
        return super().update_all(image, only)


class Notes:
    """What each image took, milliseconds by part; an image is known by its stamp."""

    def __init__(self) -> None:
        self.images: list[dict[str, float]] = []
        self._received: dict[tuple[int, int], dict[str, float]] = {}
        self._taken = 0.0
        self._here = threading.local()

    def timed(self, part: str, act: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``act``, its time booked on ``part`` of the image that this thread works on; not what is inside it."""

        @wraps(act)
        def wrapper(*args: Any, **named: Any) -> Any:
            image = getattr(self._here, "image", None)
            if image is None:
                return act(*args, **named)
            begin, inner = time.perf_counter(), self._here.inner
            self._here.inner = 0.0
            try:
                return act(*args, **named)
            finally:
                whole = (time.perf_counter() - begin) * 1e3
                image[part] = image.get(part, 0.0) + whole - self._here.inner
                self._here.inner = inner + whole

        return wrapper

    def install(self) -> None:
        """Wrap what an image goes through."""
        Executor._take_subscription = self._taking(Executor._take_subscription)
        Pipeline.receive = self._receiving(Pipeline.receive)
        Pipeline._process = self._processing(Pipeline._process)
        Publishers.publish = self._published(Publishers.publish)
        ImageDecoder.__call__ = self.timed("conversion", ImageDecoder.__call__)
        messages.detections = self.timed("building messages", messages.detections)
        messages.target_state = self.timed("building messages", messages.target_state)
        Publisher.publish = self.timed("publishing", Publisher.publish)

    def _taking(self, take: Callable[..., Any]) -> Callable[..., Any]:
        """Time how long rclpy takes to make a Python message of what the middleware holds; before the receipt."""

        def wrapper(executor: Any, subscription: Any) -> Any:
            begin = time.perf_counter()
            found = take(executor, subscription)
            if subscription.msg_type is Image:
                self._taken = (time.perf_counter() - begin) * 1e3
            return found

        return wrapper

    def _receiving(self, receive: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(pipeline: Any, image: Any) -> Any:
            begin = time.perf_counter()
            stamp = image.header.stamp
            row = {"stamp": stamp.sec + stamp.nanosec * 1e-9, "taking": self._taken, "begin": begin}
            self._received[stamp.sec, stamp.nanosec] = row
            while len(self._received) > 100:  # skipped images
                self._received.pop(next(iter(self._received)), None)
            try:
                return receive(pipeline, image)
            finally:
                row["receiving"] = (time.perf_counter() - begin) * 1e3

        return wrapper

    def _processing(self, process: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(pipeline: Any, image: Any) -> Any:
            row = self._received.pop((image.header.stamp.sec, image.header.stamp.nanosec), None)
            if row is not None:
                row["until processed"] = (time.perf_counter() - row["begin"]) * 1e3
            self._here.image, self._here.inner = row, 0.0
            try:
                return process(pipeline, image)
            finally:
                self._here.image = None

        return wrapper

    def _published(self, publish: Callable[..., Any]) -> Callable[..., Any]:
        """Close an image's account when the last message about it is out."""

        def wrapper(*args: Any, **named: Any) -> Any:
            age = publish(*args, **named)
            row = getattr(self._here, "image", None)
            if row is not None and "whole" not in row and len(self.images) < MOST_IMAGES:
                row["whole"] = (time.perf_counter() - row.pop("begin")) * 1e3
                row["age"] = age * 1e3
                self.images.append(row)
            return age

        return wrapper


def serve(argv: Sequence[str]) -> int:
    """Run the node until SIGINT; write the notes as JSON while it says good-bye."""
    parser = argparse.ArgumentParser(prog="ros_benchmark_node")
    parser.add_argument("--seconds", type=float, help="what the inference is to take; without it, the real tracker")
    parser.add_argument("--notes", type=Path, required=True)
    given, ros = parser.parse_known_args(argv)
    notes = Notes()
    notes.install()

    def make(parameters: Any) -> Any:
        if given.seconds is not None:
            return NullTracker(given.seconds, notes)
        tracker: Any = load_tracker(parameters)
        tracker.update_all = notes.timed("inference", tracker.update_all)
        return tracker

    code = main(ros, tracker_factory=make)
    partial = given.notes.with_suffix(".part")
    partial.write_text(json.dumps(notes.images), encoding="utf-8")
    os.replace(partial, given.notes)
    return code


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:]))
