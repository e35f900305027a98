# SPDX-License-Identifier: Apache-2.0
"""A client of the tracker, as short as one can be, that also records the results."""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import rclpy
from builtin_interfaces.msg import Time
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.client import Client
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from dimp_ros.apps.demo.launch import DEMO_PARAMETERS, RESULTS, check_results
from dimp_ros.apps.recording.annotated_video import AnnotatedVideo, Observation, Summary
from dimp_ros.apps.recording.recording_thread import RecordingFailed, run_recording
from dimp_ros.apps.recording.run_files import FIGURES, RunFiles
from dimp_ros.files.outputs import write_text
from dimp_ros.geometry.box import Box, check_box, check_point
from dimp_ros.images.conversion import to_bgr
from dimp_ros.images.stamps import stamp_ns
from dimp_ros.msg import TargetState
from dimp_ros.ros_utils.messages import bounding_box
from dimp_ros.ros_utils.namesakes import DISCOVERY_SECONDS, conflicting_program
from dimp_ros.ros_utils.parameters import ParameterHandler
from dimp_ros.ros_utils.qos import reliable_qos
from dimp_ros.ros_utils.spin import Finish, run
from dimp_ros.srv import InitTarget

STATE_NAMES = {getattr(TargetState, name): name for name in ("UNINITIALIZED", "TRACKING", "UNCERTAIN", "LOST")}
POLL_SECONDS = 0.02
SOURCE_SECONDS = 10.0
"""How long the video source is waited for."""
PROMPT_SECONDS = 1.0
"""A refusal that takes longer may be due to the machine."""
REPEATS = 3
NO_IMAGE = "no image"
"""In the refusals of a tracker that lacks the image: the next one may reach it."""
MANY_SKIPPED = 0.25
"""From this share of skipped images on, a lost target may be due to the machine."""


class DemoFailed(RecordingFailed):
    """The demo cannot go on; the text says why."""


def lost_text(lost: int, processed: int, published: int) -> str:
    """Return how often the target was lost, and the remedy where many images were skipped."""
    text = f"the target was lost in {lost} of {processed} images"
    if processed >= (1 - MANY_SKIPPED) * published:
        return text
    skipped = f"{published - processed} of {published} were skipped"
    return f"{text}; {skipped}: the machine is too busy or too slow for the video's rate, try rate:=10"


def is_lasting(refusals: Sequence[str]) -> bool:
    """Tell whether an active tracker, which has an image, has said the same of several images that show the same.

    :param refusals: what it said at once; empty texts for other refusals.
    """
    last = refusals[-REPEATS:]
    return len(last) == REPEATS and len(set(last)) == 1 and last[0] != "" and NO_IMAGE not in last[0]


class Demo(Node):
    """Sets a target in the first image, listens until the video is over, and writes video and figures.

    `_run` does everything in order, in a thread of its own; callbacks only store what arrives.

    :param finish: called with the exit code: 0 if the target was followed, 1 if it was lost, 2 if nothing was shown.
    """

    def __init__(self, finish: Finish, **node_options: Any) -> None:
        super().__init__("demo", **node_options)
        self._finish = finish
        self._settings = ParameterHandler(self, DEMO_PARAMETERS)
        self._settings.require_valid()
        if len(self._settings["box"]) != 4:
            raise ValueError(f"box has {len(self._settings['box'])} numbers, but must have 4: x, y, width, height")
        self._closing = threading.Event()
        self._lock = threading.Lock()  # guards all that follows
        self._first: Image | None = None
        self._recording_since: int | None = None  # stamp of the first image that counts, nanoseconds
        self._observations: dict[int, Observation] = {}
        self._published: set[int] = set()
        self._last_image = time.monotonic()
        self._files = RunFiles(Path(self._settings["out"]), RESULTS)
        self._video = AnnotatedVideo(self._files.path("annotated.mp4"))
        self._failed: Exception | None = None  # why the video could not be written
        tracker, source = self._settings["tracker"], self._settings["source"]
        group = MutuallyExclusiveCallbackGroup()
        self._init = self.create_client(InitTarget, f"{tracker}/init_target", callback_group=group)
        self._parameters_of_tracker = self.create_client(
            GetParameters, f"{tracker}/get_parameters", callback_group=group
        )
        self._get_state = self.create_client(GetState, f"{tracker}/get_state", callback_group=group)
        self._set_enabled = self.create_client(SetBool, f"{tracker}/set_enabled", callback_group=group)
        self._parameters_of_source = self.create_client(GetParameters, f"{source}/get_parameters", callback_group=group)
        self._set_playing = self.create_client(SetBool, f"{source}/set_playing", callback_group=group)
        self._thread = threading.Thread(target=self._main, name="demo", daemon=True)
        self._thread.start()

    def _main(self) -> None:
        self._finish(run_recording("demo", self._run, self._keep_video, self._files, self._closing))

    def _keep_video(self) -> int:
        with self._lock:
            self._recording_since = None
            return self._video.close()

    def _run(self) -> int:
        self._require_alone()
        paused = self._play(False)
        self.create_subscription(Image, "image", self._on_image, reliable_qos(50))
        self.create_subscription(TargetState, "target", self._on_target, reliable_qos(50, latched=True))
        self._await_first_image()
        self._check_results()
        self._set_target(paused)
        self._files.begin()
        with self._lock:  # while the source waits, it repeats its first image, which does not count
            self._recording_since = self.get_clock().now().nanoseconds if paused else 0
        if paused:
            self._play(True)
        self._listen()
        if self._failed is not None:
            print(f"[demo] {self._failed}", file=sys.stderr)
        code = self._report()
        return code if self._failed is None else 2

    def _wait(self, condition: Callable[[], bool], seconds: float, complaint: str) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if self._closing.wait(POLL_SECONDS):
                raise DemoFailed("interrupted")
            if time.monotonic() > end:
                raise DemoFailed(f"{complaint} within {seconds:g} s")

    def _call(self, client: Client, request: Any, seconds: float) -> Any:
        """Call a service and return its answer.

        :raises DemoFailed: if there is none in time.
        """
        self._wait(client.service_is_ready, seconds, f"there is no service {client.srv_name}")
        future = client.call_async(request)
        self._wait(future.done, seconds, f"{client.srv_name} has not answered")
        return future.result()

    def _require_alone(self) -> None:
        """Refuse to begin beside another demo: its source would obey this one, and both would record all images.

        :raises DemoFailed: if there is one.
        """
        begin = time.monotonic()
        waited = 0.0
        while waited < DISCOVERY_SECONDS or (waited < SOURCE_SECONDS and not self._set_playing.service_is_ready()):
            if self._closing.wait(POLL_SECONDS):
                raise DemoFailed("interrupted")
            if other := conflicting_program(self, (self.get_name(),), "image"):
                raise DemoFailed(other)
            waited = time.monotonic() - begin

    def _play(self, playing: bool) -> bool:
        """Let the source play, or wait; return whether it obeys. A camera does not."""
        try:
            if self._set_playing.service_is_ready():
                return bool(self._call(self._set_playing, SetBool.Request(data=playing), SOURCE_SECONDS).success)
        except DemoFailed:
            if self._closing.is_set():
                raise
        self.get_logger().info("there is no video source that waits: the images are taken as they come")
        return False

    def _check_results(self) -> None:
        """Refuse results that would overwrite the video; other sources, as a bag, do not tell their files."""
        if not self._parameters_of_source.service_is_ready():
            return
        answer = self._call(self._parameters_of_source, GetParameters.Request(names=["video_path"]), 10.0)
        if path := "".join(value.string_value for value in answer.values):
            try:
                check_results(self._files.folder, Path(path))
            except (ValueError, OSError) as error:
                raise DemoFailed(str(error)) from error

    def _await_first_image(self) -> None:
        """Wait for an image; the source may be waiting for a tracker that does not come up, so tell what that says."""
        patience = self._settings["patience"]
        end = time.monotonic() + patience
        trouble = ""
        while self._first is None:
            try:
                self._wait(lambda: self._first is not None, min(3.0, patience), "no image has come")
            except DemoFailed:
                if self._closing.is_set():
                    raise
                if time.monotonic() >= end:
                    raise DemoFailed(f"no image has come within {patience:g} s{trouble}") from None
                trouble = self._why_not_active(end - time.monotonic())
                self.get_logger().info(f"waiting for the first image{trouble}")

    def _why_not_active(self, seconds: float) -> str:
        """Return what the tracker answers where it is not active, nor on its way there, for the end of a sentence."""
        state = self._call(self._get_state, GetState.Request(), seconds).current_state
        if state.id not in (State.PRIMARY_STATE_UNCONFIGURED, State.PRIMARY_STATE_INACTIVE):
            return "" if state.id == State.PRIMARY_STATE_ACTIVE else f"; the tracker is {state.label}"
        answer = self._call(self._set_enabled, SetBool.Request(data=True), seconds)
        return "" if answer.success else f"; {answer.message}"

    def _set_target(self, paused: bool) -> None:
        """Ask for the target in the first image. While the source waits, all images show the same frame.

        :raises DemoFailed: if it is refused for good: another image would not help, or the time is over.
        """
        end = time.monotonic() + self._settings["patience"]
        box = bounding_box(self._settings["box"])
        told: list[str] = []
        while True:
            with self._lock:
                assert self._first is not None
                image = self._first
            stamp = image.header.stamp
            state = self._call(self._get_state, GetState.Request(), self._settings["patience"]).current_state
            active, asked = state.id == State.PRIMARY_STATE_ACTIVE, time.monotonic()
            answer = self._call(self._init, InitTarget.Request(stamp=stamp, bbox=box), self._settings["patience"])
            if answer.success:
                self.get_logger().info(answer.message)
                return
            told.append(answer.message if active and time.monotonic() < asked + PROMPT_SECONDS else "")
            if (paused and is_lasting(told)) or self._box_outside(image) or time.monotonic() > end:
                raise DemoFailed(f"the tracker refuses the target: {answer.message}")
            self._closing.wait(0.3)
            if paused:
                with self._lock:
                    self._first = None
                self._wait(lambda: self._first is not None, self._settings["patience"], "no further image has come")

    def _box_outside(self, image: Image) -> bool:
        """Tell whether no image of this size has a target in the box."""
        box = Box(*self._settings["box"])
        try:
            if box.is_point:
                check_point(box.center, image.width, image.height)
            else:
                check_box(box, image.width, image.height, min_side=0.0)
        except (ValueError, ZeroDivisionError):
            return True
        return False

    def _on_image(self, image: Image) -> None:
        with self._lock:
            self._last_image = time.monotonic()
            if self._first is None:
                self._first = image
            stamp = stamp_ns(image.header.stamp)
            if self._recording_since is not None and stamp >= self._recording_since:
                self._published.add(stamp)
                self._record(lambda: self._video.add_image(stamp, to_bgr(image).copy()))

    def _on_target(self, target: TargetState) -> None:
        with self._lock:
            if self._recording_since is None or target.header.stamp == Time():
                return
            centre, w, h = target.bbox.center.position, target.bbox.size_x, target.bbox.size_y
            box = Box.from_center(centre.x, centre.y, w, h) if w > 0 else None
            observation = Observation(STATE_NAMES[target.state], box, target.confidence, target.age, target.id)
            stamp = stamp_ns(target.header.stamp)
            self._observations[stamp] = observation
            self._record(lambda: self._video.add_observation(stamp, observation))

    def _record(self, write: Callable[[], object]) -> None:
        """Write to the video until that fails, as on a full disk: an error must not end the executor."""
        if self._failed is None:
            try:
                write()
            except (OSError, ValueError) as error:
                self._failed = error

    def _listen(self) -> None:
        """Record until no image comes any more."""
        silence = self._settings["silence"]
        with self._lock:
            self._last_image = time.monotonic()
        while time.monotonic() - self._last_image < silence and self._failed is None:
            if self._closing.wait(POLL_SECONDS):
                raise DemoFailed("interrupted")
        with self._lock:
            self._recording_since = None
            self._record(self._video.close)
        if self._closing.is_set():
            raise DemoFailed("interrupted")

    def _report(self) -> int:
        """Write and print the figures, and return the exit code."""
        recorded = {stamp: observation for stamp, observation in self._observations.items() if stamp in self._published}
        summary = Summary.of(recorded, len(self._published))
        answer = self._call(self._parameters_of_tracker, GetParameters.Request(names=["model"]), 10.0)
        more = {"model": answer.values[0].string_value, "rmw": rclpy.get_rmw_implementation_identifier()}
        write_text(self._files.path(FIGURES), json.dumps({**dataclasses.asdict(summary), **more}, indent=2) + "\n")
        print(f"[demo]\n{summary.text(**more)}", flush=True)
        if not summary.frames:
            raise DemoFailed("the tracker has processed no image")
        if summary.lost > self._settings["max_lost"]:
            print(f"[demo] {lost_text(summary.lost, summary.frames, len(self._published))}", file=sys.stderr)
            return 1
        return 0

    def close(self) -> bool:
        """Stop the thread; return whether it has ended."""
        self._closing.set()
        self._video.hasten()
        self._thread.join(1.0)
        return not self._thread.is_alive()


def main(args: Sequence[str] | None = None) -> int:
    """Run the demo until the video is over, SIGINT or SIGTERM."""
    return run(Demo, args)


if __name__ == "__main__":
    sys.exit(main())
