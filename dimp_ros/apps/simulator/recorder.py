# SPDX-License-Identifier: Apache-2.0
"""A node that closes a loop in the simulator, watches it, and writes what came of it: plot, video and figures."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TwistStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.client import Client
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from dimp_ros.apps.recording.annotated_video import BackgroundVideo, Observation
from dimp_ros.apps.recording.recording_thread import RecordingFailed, run_recording
from dimp_ros.apps.recording.run_files import FIGURES, RunFiles
from dimp_ros.apps.simulator.metrics import (
    BAND,
    STALE_SECONDS,
    CommandRecord,
    ErrorRecord,
    LoopFigures,
    LoopRecording,
    StateRecord,
)
from dimp_ros.apps.simulator.node import COMMAND_TOPICS
from dimp_ros.apps.simulator.plots import plot_loop
from dimp_ros.files.outputs import write_text
from dimp_ros.geometry.box import Box
from dimp_ros.images.conversion import to_bgr
from dimp_ros.images.stamps import NANOSECONDS, stamp_ns
from dimp_ros.msg import TargetState, TargetStateArray
from dimp_ros.ros_utils.qos import reliable_qos
from dimp_ros.ros_utils.spin import Finish
from dimp_ros.srv import InitTarget

POLL_SECONDS = 0.02
MOST_UNINFORMED = 0.5
"""Share of the time with states that are too old beyond which the figures say nothing about the loop."""
RETRY_SECONDS = 1.0
TARGET_ID = "goal"
"""With a name, a request that is repeated starts the same target over."""
STATE_NAMES = {getattr(TargetState, name): name for name in ("UNINITIALIZED", "TRACKING", "UNCERTAIN", "LOST")}


class LoopFailed(RecordingFailed):
    """The loop cannot be closed; the text says why."""


@dataclasses.dataclass(frozen=True)
class LoopPlan:
    """What a recorder does.

    :param mode: vehicle or arm. :param controller: name of the node that steers. :param out: folder for the results.
    :param seconds: from the closing of the loop until the tracker is killed. :param after: how long it goes on then.
    :param kill_tracker: kills the tracker's process; None where the truth stands in for a tracker.
    :param patience: seconds to wait for services and images.
    :param final_px: how far from its set point the tracker may see a target that lies still in the end, pixels; None
        for one that moves. :param forward_acceleration: largest `LoopFigures.forward_acceleration`, m/s²; None for any.
    """

    mode: str
    controller: str
    out: Path
    kill_tracker: Callable[[], None] | None = None
    seconds: float = 22.0
    after: float = 2.0
    patience: float = 300.0
    final_px: float | None = None
    forward_acceleration: float | None = None


class LoopRecorder(Node):
    """Gives the tracker its target, lets the controller move and the target go, and kills the tracker in the end.

    `_run` is the sequence of steps, in a thread of its own; callbacks only record. Records have the time at which
    something was published, by its stamp, not at which it arrives here: all nodes run on this machine, and
    this one has a video to draw, so that it may hear of things late.

    :param finish: called with the exit code: 0 if the figures are good, 1 if they are not, 2 if there are none.
    """

    results: ClassVar[tuple[str, ...]] = ("annotated.mp4", "plot.png", FIGURES)
    """Names of the files that a whole run has."""

    def __init__(self, plan: LoopPlan, finish: Finish, **node_options: Any) -> None:
        super().__init__("loop_recorder", **node_options)
        self._plan, self._finish = plan, finish
        self._closing = threading.Event()
        self._lock = threading.Lock()  # guards all that follows
        self._recording: LoopRecording | None = None
        self._truth: TargetState | None = None
        self._looked_at: Time | None = None  # stamp of the latest image that the tracker has told of
        self._tracking = False
        self._late: list[float] = []  # seconds from the publication of a command to its arrival
        self._heard_until = 0.0  # when the latest command that arrived was published
        self._size = (0, 0)
        self._files = RunFiles(plan.out, self.results)
        self._video = BackgroundVideo(self._files.path("annotated.mp4"))
        group = MutuallyExclusiveCallbackGroup()
        self._init = self.create_client(InitTarget, "tracker_node/init_target", callback_group=group)
        self._enable = self.create_client(SetBool, f"{plan.controller}/set_enabled", callback_group=group)
        self._play = self.create_client(SetBool, "simulator_node/set_playing", callback_group=group)
        # A group for each, and queues for some seconds in which this node is not given time.
        for kind, topic, callback, depth in (
            (Image, "image", self._on_image, 20),
            (TargetStateArray, "ground_truth", self._on_truth, 200),
            (TargetStateArray, "targets", self._on_targets, 200),
            (TwistStamped, COMMAND_TOPICS[plan.mode], self._on_command, 500),
        ):
            self.create_subscription(
                kind, topic, callback, reliable_qos(depth), callback_group=MutuallyExclusiveCallbackGroup()
            )
        self._thread = threading.Thread(target=self._main, name="recorder", daemon=True)
        self._thread.start()

    def _main(self) -> None:
        self._finish(run_recording("loop", self._run, self._keep_video, self._files, self._closing))

    def _keep_video(self) -> int:
        with self._lock:
            self._recording = None
        return self._video.close()

    def _run(self) -> int:
        plan = self._plan
        self._wait(lambda: self._truth is not None and self._size[0] > 0, "no image and no truth have come")
        if plan.kill_tracker is not None:
            self._wait(lambda: self._looked_at is not None, "the tracker says nothing of any image")
            self._set_target()
            self._wait(lambda: self._tracking, "the tracker does not see the target")
        self._files.begin()
        with self._lock:
            self._recording = LoopRecording(self._size, enabled=self._now())
        self._call(self._enable, SetBool.Request(data=True))
        self._call(self._play, SetBool.Request(data=True))
        self._pause(plan.seconds)
        if plan.kill_tracker is not None:
            killed = self._now()
            plan.kill_tracker()
            with self._lock:
                self._recording.killed = killed
            self._pause(plan.after)
        end = self._now()  # messages sent until now may be under way still
        self._wait(lambda: self._heard_until >= end, "no command has come")
        with self._lock:
            recording, self._recording = self._recording, None
        self._video.close()
        self._pause(0.0)
        return self._report(recording)

    def _set_target(self) -> None:
        """Ask for the target where it truly is, in an image that the tracker has seen; nothing moves as yet."""
        end = time.monotonic() + self._plan.patience
        while True:
            assert self._truth is not None
            request = InitTarget.Request(stamp=self._looked_at, bbox=self._truth.bbox, id=TARGET_ID)
            answer = self._call(self._init, request)
            if answer.success:
                self.get_logger().info(answer.message)
                return
            if time.monotonic() > end:
                raise LoopFailed(f"the tracker refuses the target: {answer.message}")
            self._pause(RETRY_SECONDS)

    def _wait(self, condition: Callable[[], bool], complaint: str) -> None:
        end = time.monotonic() + self._plan.patience
        while not condition():
            self._pause(POLL_SECONDS)
            if time.monotonic() > end:
                raise LoopFailed(f"{complaint} within {self._plan.patience:g} s")

    def _pause(self, seconds: float) -> None:
        if self._closing.wait(seconds):
            raise LoopFailed("interrupted")

    def _call(self, client: Client, request: Any) -> Any:
        self._wait(client.service_is_ready, f"there is no service {client.srv_name}")
        future = client.call_async(request)
        self._wait(future.done, f"{client.srv_name} has not answered")
        answer = future.result()
        if not answer.success and client is not self._init:
            raise LoopFailed(f"{client.srv_name} refuses: {answer.message}")
        return answer

    def _now(self) -> float:
        """Return the time on which all notes are, seconds."""
        return float(self.get_clock().now().nanoseconds / NANOSECONDS)

    def _on_image(self, image: Image) -> None:
        with self._lock:
            self._size = (image.width, image.height)
            if self._recording is not None:
                self._video.add_image(stamp_ns(image.header.stamp), lambda: to_bgr(image).copy())

    def _on_truth(self, message: TargetStateArray) -> None:
        truth = message.targets[0]
        with self._lock:
            if truth.state == TargetState.TRACKING:
                self._truth = truth
            if self._recording is None:
                return
            centre, (width, height) = truth.bbox.center.position, self._size
            seen = truth.state == TargetState.TRACKING
            x, y = (centre.x / width - 0.5, centre.y / height - 0.5) if seen else (math.nan, math.nan)
            self._recording.errors.append(ErrorRecord(seconds_of(message.header.stamp), x, y, truth.confidence))

    def _on_targets(self, message: TargetStateArray) -> None:
        if message.header.stamp != Time():
            self._looked_at = message.header.stamp
        if not message.targets:
            return
        target = message.targets[0]
        with self._lock:
            self._tracking = target.state == TargetState.TRACKING
            if self._recording is None:
                return
            name, bbox = STATE_NAMES[target.state], target.bbox
            centre, (width, height) = bbox.center.position, self._size
            x, y = (centre.x / width - 0.5, centre.y / height - 0.5) if bbox.size_x > 0 else (math.nan, math.nan)
            when = seconds_of(message.header.stamp) + target.age
            self._recording.states.append(StateRecord(when, name, target.confidence, target.age, x, y))
            box = Box.from_center(centre.x, centre.y, bbox.size_x, bbox.size_y)
            said = Observation(name, box if box.w > 0 else None, target.confidence, target.age)
            self._video.add_observation(stamp_ns(message.header.stamp), said)

    def _on_command(self, message: TwistStamped) -> None:
        when, linear, angular = seconds_of(message.header.stamp), message.twist.linear, message.twist.angular
        late = self._now() - when
        with self._lock:
            self._heard_until = when
            if self._recording is not None and when >= self._recording.enabled:
                twist = (linear.x, linear.y, linear.z, angular.x, angular.y, angular.z)
                self._recording.commands.append(CommandRecord(when, twist))
                self._late.append(late)

    def _report(self, recording: LoopRecording) -> int:
        """Write and print the figures, and return the exit code."""
        figures = LoopFigures.of(recording)
        more: dict[str, Any] = {
            "images": len(recording.errors),
            "states": len(recording.states),
            "commands": len(recording.commands),
            "heard_late_ms_most": round(max(self._late, default=0.0) * 1e3, 1),
            "rmw": rclpy.get_rmw_implementation_identifier(),
        }
        values = {**dataclasses.asdict(figures), **more}
        shown = {name: str(value) if value == math.inf else value for name, value in values.items()}  # JSON has no inf
        write_text(self._files.path(FIGURES), json.dumps(shown, indent=2) + "\n")
        title = f"{self._plan.controller} in the simulator, set point at the middle of the image"
        plot_loop(recording, figures, self._files.path("plot.png"), mode=self._plan.mode, title=title)
        lines = "\n".join(f"  {name:<26} {value}" for name, value in shown.items() if value is not None)
        print(f"[loop]\n{lines}", flush=True)
        complaints = unmet(figures, self._plan.final_px, self._plan.forward_acceleration)
        for complaint in complaints:
            print(f"[loop] {complaint}", file=sys.stderr)
        return 1 if complaints else 0

    def close(self) -> bool:
        """Stop the thread; return whether it has ended."""
        self._closing.set()
        self._video.hasten()
        self._thread.join(1.0)
        return not self._thread.is_alive()


def seconds_of(stamp: Time) -> float:
    """Return a stamp in seconds."""
    return stamp_ns(stamp) / NANOSECONDS


def unmet(figures: LoopFigures, final_px: float | None = None, forward_acceleration: float | None = None) -> list[str]:
    """Return the requirements that a loop has not met; see `LoopPlan` for the two that not all have."""
    limits = (
        ("settling_seconds", 3.0, "settling took {:g} s, and may take {:g}"),
        ("stop_seconds", 0.25, "the command was zero {:g} s after the message of the loss, and must be within {:g} s"),
        ("kill_stop_seconds", 0.75, "the command was zero {:g} s after the tracker's death, and must be within {:g} s"),
        ("final_seen_error_px", final_px, "the tracker saw the target {:g} px from the set point in the end, not {:g}"),
        ("forward_acceleration", forward_acceleration, "the forward command changed by {:g} m/s² (std), not {:g}"),
    )
    complaints = []
    for name, most, text in limits:
        value = getattr(figures, name)
        if value is not None and most is not None and value > most:
            complaints.append(text.format(value, most))
    if figures.settling_seconds is None:
        complaints.append("the target did not settle on its set point")
    elif figures.within_share is not None and figures.within_share < 0.95:
        complaints.append(f"the target was within {BAND:.0%} for {figures.within_share:.1%} of the time, not for 95 %")
    if figures.uninformed_share is not None and figures.uninformed_share > MOST_UNINFORMED:
        complaints.append(
            f"states were older than {STALE_SECONDS:g} s for {figures.uninformed_share:.0%} of the time: this machine "
            "is too slow, or too busy, for a verdict"
        )
    return complaints
