# SPDX-License-Identifier: Apache-2.0
"""The simulator node: consistent and true messages, motion on commands, and stops."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped, TwistStamped
from harness.ros_harness import (
    RELIABLE,
    Image,
    Node,
    Parameter,
    ScriptedTracker,
    SetBool,
    TargetState,
    context,
    spinning,
    tracker_node,
    wait_until,
)
from sensor_msgs.msg import CameraInfo

from dimp_ros.apps.simulator.messages import quaternion
from dimp_ros.apps.simulator.metrics import LoopFigures
from dimp_ros.apps.simulator.node import Simulator, main
from dimp_ros.apps.simulator.recorder import LoopPlan, LoopRecorder, unmet
from dimp_ros.apps.simulator.settings import simulator_parameters
from dimp_ros.apps.steering.follower import Follower
from dimp_ros.geometry.camera import Camera
from dimp_ros.images.conversion import to_bgr
from dimp_ros.msg import TargetStateArray

ROOT = Path(__file__).resolve().parents[2]

SMALL = {"width": 160, "height": 120, "rate": 20.0}


class Audience:
    """Subscribes all that a simulator publishes, and steers it."""

    def __init__(self, command_topic: str) -> None:
        self.node = Node("audience")
        self.images: list[Image] = []
        self.depths: list[Image] = []
        self.infos: list[CameraInfo] = []
        self.truths: list[TargetStateArray] = []
        self.places: list[PoseStamped] = []
        self.poses: list[PoseStamped] = []
        for kind, topic, box in (
            (Image, "image", self.images),
            (Image, "depth", self.depths),
            (CameraInfo, "camera_info", self.infos),
            (TargetStateArray, "ground_truth", self.truths),
            (PoseStamped, "ground_truth_pose", self.places),
            (PoseStamped, "camera_pose", self.poses),
        ):
            self.node.create_subscription(kind, topic, box.append, RELIABLE)
        self.commands = self.node.create_publisher(TwistStamped, command_topic, RELIABLE)

    def steer(self, **linear: float) -> None:
        """Publish a command."""
        message = TwistStamped()
        for name, value in linear.items():
            setattr(message.twist.linear, name, value)
        self.commands.publish(message)

    def set_playing(self, playing: bool) -> None:
        """Let the target move, or not."""
        client = self.node.create_client(SetBool, "simulator_node/set_playing")
        assert client.wait_for_service(timeout_sec=15)
        future = client.call_async(SetBool.Request(data=playing))
        wait_until(future.done, "answer of set_playing")
        assert future.result().success

    def ahead(self) -> float:
        """Return how far the camera has come along the world's x axis."""
        return self.poses[-1].pose.position.x


@contextmanager
def simulating(**parameters: Any) -> Iterator[tuple[Simulator, Audience]]:
    """Run a simulator and its audience."""
    overrides = [Parameter(name, value=value) for name, value in (SMALL | parameters).items()]
    with context():
        simulator = Simulator(lambda code: None, parameter_overrides=overrides)
        audience = Audience("delta_twist_cmds" if parameters.get("mode") == "arm" else "cmd_vel")
        with spinning(simulator, audience.node):
            wait_until(lambda: audience.poses and audience.depths, "the first messages")
            wait_until(audience.commands.get_subscription_count, "somebody who obeys")
            yield simulator, audience


def test_messages_of_one_moment_agree():
    with simulating(frame_id="lens", target_offset=[0.2, -0.1]) as (_, audience):

        def complete() -> Any:
            stamps = [
                {(m.header.stamp.sec, m.header.stamp.nanosec) for m in list(box)}
                for box in (audience.images, audience.depths, audience.infos, audience.truths, audience.places)
            ]
            return set.intersection(*stamps)

        stamp = max(wait_until(complete, "a moment of which all is told"))

        def of_stamp(box: list[Any]) -> Any:
            return next(m for m in box if (m.header.stamp.sec, m.header.stamp.nanosec) == stamp)

        image, depth, info = (of_stamp(b) for b in (audience.images, audience.depths, audience.infos))
        truth, place = of_stamp(audience.truths).targets[0], of_stamp(audience.places).pose.position
        assert {image.header.frame_id, depth.header.frame_id, info.header.frame_id} == {"lens"}
        assert (image.encoding, image.width, image.height) == ("bgr8", 160, 120) and to_bgr(image).std() > 10
        metres = np.frombuffer(bytes(depth.data), "<f4").reshape(120, 160)
        centre = truth.bbox.center.position
        assert depth.encoding == "32FC1" and depth.step == 640
        assert metres[int(centre.y), int(centre.x)] == pytest.approx(place.z, rel=0.05)
        assert truth.state == TargetState.TRACKING and truth.confidence == 1.0 and truth.age >= 0.0
        assert centre.x == pytest.approx(160 * 0.7, abs=1) and centre.y == pytest.approx(120 * 0.4, abs=1)
        ray = Camera.from_info(info).bearing(centre.x, centre.y)
        assert [truth.bearing.x, truth.bearing.y, truth.bearing.z] == pytest.approx(ray.tolist(), abs=1e-5)
        assert ray == pytest.approx(
            np.array([place.x, place.y, place.z]) / math.hypot(place.x, place.y, place.z), abs=0.01
        )


def test_a_command_moves_the_vehicle_and_its_end_stops_it():
    with simulating(lag=0.05) as (simulator, audience):
        begin = audience.ahead()
        for _ in range(20):
            audience.steer(x=1.0)
            time.sleep(0.02)
        wait_until(lambda: audience.ahead() > begin + 0.1, "motion")
        wait_until(lambda: not simulator.world.truth().velocity.round(6).any(), "standstill by itself")
        end = audience.ahead()
        count = len(audience.poses)
        wait_until(lambda: len(audience.poses) > count + 4, "further poses")
        assert audience.ahead() == pytest.approx(audience.poses[count].pose.position.x, abs=1e-6) and end > begin


def test_a_command_of_an_arm_is_in_the_optical_frame():
    with simulating(mode="arm", lag=0.0, target_distance=0.5, max_speed=0.5) as (_, audience):
        height = audience.poses[0].pose.position.z
        for _ in range(20):
            audience.steer(z=0.2)  # along the optical axis: down
            time.sleep(0.02)
        wait_until(lambda: audience.poses[-1].pose.position.z < height - 0.02, "the camera going down")


def test_command_that_is_not_a_number_stops_the_camera():
    with simulating(command_timeout=10.0, lag=0.0) as (simulator, audience):
        audience.steer(x=1.0)
        wait_until(lambda: simulator.world.truth().velocity[0] > 0.5, "motion")
        audience.steer(x=math.nan)
        wait_until(lambda: simulator.world.truth().velocity[0] == 0.0, "standstill")


def test_target_waits_for_the_command_to_move():
    with simulating(paused=True, path="sine", hide_by="vanish", hide_from=0.5, hide_until=1e4) as (_, audience):
        count = len(audience.truths)
        wait_until(lambda: len(audience.truths) > count + 15, "truths")
        centres = {round(array.targets[0].bbox.center.position.x, 6) for array in list(audience.truths)}
        assert len(centres) == 1
        audience.set_playing(True)
        lost = wait_until(
            lambda: next((a.targets[0] for a in list(audience.truths) if a.targets[0].state == TargetState.LOST), None),
            "the target's vanishing",
        )
        assert lost.confidence == 0.0 and lost.bbox.size_x == 0.0 and lost.bearing.z == 0.0
        wait_until(lambda: audience.truths[-1].targets[0].seconds_since_seen > 0.1, "the time since it was seen")


def test_images_are_delayed_as_configured():
    with simulating(image_latency=0.3) as (_, audience):
        wait_until(lambda: len(audience.truths) > 3, "truths")
        ages = [array.targets[0].age for array in list(audience.truths)]
        assert min(ages) >= 0.3


def test_a_recorded_loop_ends_with_a_plot_a_video_and_figures(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: the plot needs it")
    remapping = ["--ros-args", "-r", "targets:=ground_truth"]  # the truth stands in for a tracker
    overrides = [Parameter(name, value=value) for name, value in (SMALL | {"paused": True}).items()]
    codes: list[int] = []
    with context():
        simulator = Simulator(lambda code: None, parameter_overrides=overrides)
        follower = Follower(cli_args=remapping)
        plan = LoopPlan("vehicle", "follower", tmp_path / "new", seconds=3.0)
        recorder = LoopRecorder(plan, codes.append, cli_args=remapping)
        with spinning(simulator, follower, recorder):
            wait_until(lambda: codes, "the end of the recording", 60.0)
            assert recorder.close()
    result = json.loads((tmp_path / "new" / "result.json").read_text())
    assert codes[0] in (0, 1), "on a busy machine the figures may be bad, but there are some"
    assert min(result["images"], result["states"], result["commands"]) > 5
    assert result["losses"] == 0 and result["kill_stop_seconds"] is None
    assert (tmp_path / "new" / "plot.png").stat().st_size > 1000
    assert (tmp_path / "new" / "annotated.mp4").stat().st_size > 1000


def test_loop_that_is_interrupted_keeps_its_video_and_fails(tmp_path):
    remapping = ["--ros-args", "-r", "targets:=ground_truth"]
    overrides = [Parameter(name, value=value) for name, value in (SMALL | {"paused": True}).items()]
    codes: list[int] = []
    with context():
        simulator = Simulator(lambda code: None, parameter_overrides=overrides)
        plan = LoopPlan("vehicle", "follower", tmp_path / "new", seconds=60.0)
        recorder = LoopRecorder(plan, codes.append, cli_args=remapping)
        with spinning(simulator, Follower(cli_args=remapping), recorder):
            wait_until(lambda: any((tmp_path / "new").glob(".*")), "the beginning of the video", 60.0)
            assert recorder.close() and codes == [2]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["annotated.partial.mp4"]
    assert (tmp_path / "new" / "annotated.partial.mp4").stat().st_size > 1000


def test_slow_tracker_is_asked_for_an_image_that_it_has_seen(tmp_path, capfd):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: the plot needs it")
    script, dead = ScriptedTracker(), []

    def load(_parameters: Any) -> ScriptedTracker:
        time.sleep(1.0)
        return script

    overrides = [Parameter(name, value=value) for name, value in (SMALL | {"paused": True}).items()]
    codes: list[int] = []
    with context():
        simulator = Simulator(lambda code: None, parameter_overrides=overrides)
        plan = LoopPlan("vehicle", "follower", tmp_path, kill_tracker=lambda: dead.append(True), seconds=1.0, after=0.2)
        nodes = [simulator, Follower(), tracker_node(load), LoopRecorder(plan, codes.append)]
        with spinning(*nodes):
            wait_until(lambda: codes, "the end of the recording", 60.0)
            assert nodes[-1].close()
        box = simulator.world.truth().box
    assert "refused" not in capfd.readouterr().err
    assert box is not None and [(name, given) for _, given, name in script.inits] == [
        ("goal", pytest.approx(box, abs=1))
    ]
    assert dead == [True]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["states"] > 5 and result["heard_late_ms_most"] > 0.0


def test_loop_that_misses_its_criteria_is_reported():
    good = LoopFigures(
        settling_seconds=0.9,
        within_share=0.97,
        median_error=0.04,
        error_95=0.06,
        uninformed_share=0.02,
        forward_acceleration=0.2,
        final_error_px=1.0,
        final_seen_error_px=0.5,
        final_box_error_px=0.8,
        losses=1,
        stop_seconds=0.14,
        stop_after_hiding_seconds=0.2,
        resume_seconds=0.02,
        resettling_seconds=0.6,
        kill_stop_seconds=0.56,
        age_ms_median=80.0,
    )
    assert unmet(good) == []
    for change, word in (
        ({"settling_seconds": 3.5}, "settling took 3.5 s"),
        ({"settling_seconds": None, "within_share": None}, "did not settle"),
        ({"within_share": 0.9}, "90.0%"),
        ({"stop_seconds": 0.3}, "0.3 s after the message"),
        ({"kill_stop_seconds": math.inf}, "death"),
    ):
        complaints = unmet(dataclasses.replace(good, **change))
        assert len(complaints) == 1 and word in complaints[0]
    assert unmet(good, 2.0) == []
    assert "2.5 px from the set point" in unmet(dataclasses.replace(good, final_seen_error_px=2.5), 2.0)[0]
    assert unmet(good, forward_acceleration=0.3) == []
    assert "0.2 m/s²" in unmet(good, forward_acceleration=0.1)[0]
    slow = unmet(dataclasses.replace(good, within_share=0.9, uninformed_share=0.6))
    assert len(slow) == 2 and "60% of the time" in slow[1]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["mode:=boat"], "mode"),
        (["width:=1"], "width"),
        (["wall_picture:=/no/such.png"], "/no/such.png"),
        (["mode:=arm", "path:=circle"], "circle"),
    ],
)
def test_what_makes_no_world_is_refused_in_one_line(arguments, word, capsys):
    assert main(["--ros-args", *(part for argument in arguments for part in ("-p", argument))]) == 1
    error = capsys.readouterr().err
    assert word in error and len(error.strip().splitlines()) == 1


def test_every_parameter_is_described():
    rows = simulator_parameters()
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.text.endswith(".") and row.read_only for row in rows)


@pytest.mark.parametrize("axis", [(1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0), (0.6, -0.48, 0.64)])
@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 2, 3.0, math.pi])
def test_a_quaternion_turns_as_its_matrix_does(axis, angle):
    import cv2

    matrix, _ = cv2.Rodrigues(np.array(axis) * angle)
    x, y, z, w = quaternion(matrix)
    assert math.hypot(x, y, z, w) == pytest.approx(1.0)
    vector, u = np.array([0.2, -0.5, 0.9]), np.array([x, y, z])
    turned = vector + 2.0 * np.cross(u, np.cross(u, vector) + w * vector)
    assert turned == pytest.approx(matrix @ vector)


def test_a_loop_demo_is_not_started_beside_another_simulator():
    command = [sys.executable, str(ROOT / "tools" / "run_loop_demo.py"), "follow", "--truth"]
    with context():
        simulator = Simulator(lambda code: None, parameter_overrides=[Parameter("width", value=64)])
        with spinning(simulator):
            result = subprocess.run(command, capture_output=True, text=True, timeout=60)
            simulator.close()
    (line,) = result.stderr.splitlines()
    assert result.returncode == 2 and line.startswith("[loop] error: another simulator_node runs in ROS domain")
