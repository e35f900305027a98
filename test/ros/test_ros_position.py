# SPDX-License-Identifier: Apache-2.0
"""Bearings and positions of targets on the node's topics, and their messages on /diagnostics."""

from __future__ import annotations

import array

import numpy as np
import pytest
from harness.ros_harness import (
    BEST_EFFORT,
    BOX,
    HEIGHT,
    RELIABLE,
    WIDTH,
    ScriptedTracker,
    State,
    numbered_image,
    running,
    stamp_of,
    start_target,
    wait_until,
)

from diagnostic_msgs.msg import DiagnosticArray  # isort: skip
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped  # isort: skip
from sensor_msgs.msg import CameraInfo, Image  # isort: skip

FOCAL = 100.0


def camera_info() -> CameraInfo:
    """Return the parameters of a camera without distortion that looks through the middle of `numbered_image`."""
    info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model="plumb_bob", d=[0.0] * 5)
    info.header.frame_id = numbered_image(0).header.frame_id
    info.k = [FOCAL, 0.0, WIDTH / 2 - 0.5, 0.0, FOCAL, HEIGHT / 2 - 0.5, 0.0, 0.0, 1.0]
    info.p = [FOCAL, 0.0, WIDTH / 2 - 0.5, 0.0, 0.0, FOCAL, HEIGHT / 2 - 0.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    return info


def depth_image(number: int, metres: float) -> Image:
    """Return a depth image with the stamp of image ``number``, as far everywhere."""
    depth = Image(header=numbered_image(number).header, width=WIDTH, height=HEIGHT, encoding="32FC1", step=4 * WIDTH)
    depth.data = array.array("B", np.full((HEIGHT, WIDTH), metres, np.float32).tobytes())
    return depth


def middle() -> tuple[float, float]:
    """Return where the middle of the target's box lies, in tangents of the angles to the optical axis."""
    return (BOX[0] + BOX[2] / 2 - WIDTH / 2) / FOCAL, (BOX[1] + BOX[3] / 2 - HEIGHT / 2) / FOCAL


def test_bearing_exists_once_calibrated_and_not_while_lost():
    tracker = ScriptedTracker()
    with running(tracker) as client:
        state = start_target(client)
        assert (state.bearing.x, state.bearing.y, state.bearing.z) == (0.0, 0.0, 0.0), "no camera_info yet"
        infos = client.node.create_publisher(CameraInfo, "camera_info", BEST_EFFORT)
        wait_until(lambda: infos.get_subscription_count() > 0, "subscription of camera_info")
        infos.publish(camera_info())
        numbers = iter(range(2, 100))
        state = wait_until(
            lambda: (s := client.show(numbered_image(next(numbers)))) and s.bearing.z > 0 and s, "a bearing"
        )
        x, y = middle()
        expected = np.array([x, y, 1.0]) / np.linalg.norm([x, y, 1.0])
        assert (state.bearing.x, state.bearing.y, state.bearing.z) == pytest.approx(tuple(expected), abs=1e-9)
        tracker.state = State.LOST
        lost = client.show(numbered_image(200))
        assert (lost.bearing.x, lost.bearing.y, lost.bearing.z) == (0.0, 0.0, 0.0)


def test_tracked_target_has_a_pose_from_depth():
    tracker = ScriptedTracker()
    with running(tracker, use_depth=True) as client:
        poses: list[PoseStamped] = []
        spreads: list[PoseWithCovarianceStamped] = []
        client.node.create_subscription(PoseStamped, "target_pose", poses.append, RELIABLE)
        client.node.create_subscription(
            PoseWithCovarianceStamped, "target_pose_with_covariance", spreads.append, RELIABLE
        )
        infos = client.node.create_publisher(CameraInfo, "camera_info", BEST_EFFORT)
        depths = client.node.create_publisher(Image, "depth", BEST_EFFORT)
        wait_until(lambda: infos.get_subscription_count() and depths.get_subscription_count(), "subscriptions")
        infos.publish(camera_info())
        start_target(client)
        numbers = iter(range(2, 100))

        def placed() -> bool:
            number = next(numbers)
            depths.publish(depth_image(number, 4.0))
            client.show(numbered_image(number))
            return bool(poses and spreads)

        wait_until(placed, "a pose")
        x, y = middle()
        at = poses[-1].pose.position
        assert (at.x, at.y, at.z) == pytest.approx((4.0 * x, 4.0 * y, 4.0), rel=1e-3)
        assert poses[-1].header.frame_id == numbered_image(0).header.frame_id
        assert spreads[-1].pose.covariance[14] > 0.0, "how well the range is known"
        for state in (State.UNCERTAIN, State.LOST):
            tracker.state = state
            number = 200 + int(state)
            depths.publish(depth_image(number, 4.0))
            client.show(numbered_image(number))
            client.show(numbered_image(number + 10))
            stamps = [(pose.header.stamp.sec, pose.header.stamp.nanosec) for pose in poses]
            assert max(stamps) < (stamp_of(200).sec, 0), f"a pose while {state.name}"


def test_diagnostics_have_rates_targets_and_camera_faults():
    with running(ScriptedTracker(), diagnostics_period=0.1) as client:
        told: list[DiagnosticArray] = []
        client.node.create_subscription(DiagnosticArray, "/diagnostics", told.append, RELIABLE)
        infos = client.node.create_publisher(CameraInfo, "camera_info", BEST_EFFORT)
        wait_until(lambda: infos.get_subscription_count() > 0, "subscription of camera_info")
        infos.publish(CameraInfo(width=WIDTH, height=HEIGHT))
        start_target(client, target_id="cup")

        def latest() -> dict[str, str]:
            return {pair.key: pair.value for status in told[-1].status for pair in status.values} if told else {}

        values = wait_until(lambda: "target cup" in latest() and latest(), "the target on /diagnostics")
        assert values["target cup"].startswith("TRACKING")
        assert [status.name for status in told[-1].status] == [
            "tracker_node: input",
            "tracker_node: tracking",
            "tracker_node: node",
        ]
        wait_until(
            lambda: any("calibrat" in status.message for status in told[-1].status), "a word on the camera's parameters"
        )
