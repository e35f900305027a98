# SPDX-License-Identifier: Apache-2.0
"""Positions as ROS messages, from real camera_info and depth messages."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from harness.camera_fixtures import K, camera_info, depth_image, scene

pytest.importorskip("sensor_msgs.msg", reason="ROS messages are not installed")
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from dimp_ros.geometry.box import Box
from dimp_ros.geometry.camera import Camera
from dimp_ros.node.position.estimator import PositionEstimator
from dimp_ros.node.position.messages import UNKNOWN_ROTATION, pose_stamped, pose_target, pose_with_covariance
from dimp_ros.tracker.result import TargetEstimate, TargetState

PLACE = (0.5, -0.3, 3.0)
DEPTH, BOX = scene(Camera.from_matrix(640, 480, K), PLACE, (0.4, 0.8))
HEADER = Header(stamp=Time(sec=10), frame_id="lens")


def real(made: object, kind: type) -> object:
    """Return a message of ``kind`` with the fields of a made one, serialized and read again."""
    from rclpy.serialization import deserialize_message, serialize_message

    message = kind(header=HEADER)
    for name in kind.get_fields_and_field_types():
        if name == "roi":
            continue
        if name != "header":
            setattr(message, name, getattr(made, name))
    return deserialize_message(serialize_message(message), kind)


def located() -> PositionEstimator:
    where = PositionEstimator()
    where.on_camera_info(real(camera_info(), CameraInfo))
    where.on_depth(real(depth_image(DEPTH), Image))
    return where


def test_pose_has_the_frame_and_stamp_of_the_image():
    position = located().position(HEADER, 640, 480, BOX)
    message = pose_stamped(HEADER, position)
    assert message.header == HEADER
    place = message.pose.position
    np.testing.assert_allclose([place.x, place.y, place.z], PLACE, atol=0.002)
    turn = message.pose.orientation
    assert (turn.x, turn.y, turn.z, turn.w) == (0.0, 0.0, 0.0, 1.0)


def test_covariance_has_position_and_unknown_rotation():
    position = located().position(HEADER, 640, 480, BOX)
    message = pose_with_covariance(HEADER, position)
    assert message.header == HEADER and message.pose.pose == pose_stamped(HEADER, position).pose
    covariance = np.array(message.pose.covariance).reshape(6, 6)
    np.testing.assert_array_equal(covariance[:3, :3], position.covariance)
    np.testing.assert_array_equal(covariance[3:, 3:], np.eye(3) * UNKNOWN_ROTATION)
    assert not covariance[:3, 3:].any() and not covariance[3:, :3].any()
    assert (np.linalg.eigvalsh(covariance) > 0).all()


def seen(target_id: str, state: TargetState = TargetState.TRACKING) -> TargetEstimate:
    return TargetEstimate(target_id, state, Box(*BOX))


def test_only_a_target_that_is_tracked_for_sure_has_a_pose():
    assert pose_target([seen("a")]).target_id == "a"
    assert pose_target([seen("a", TargetState.UNCERTAIN)]) is None
    assert pose_target([TargetEstimate("a", TargetState.LOST)]) is None
    assert pose_target([TargetEstimate("a", TargetState.TRACKING)]) is None  # without a box
    assert pose_target([]) is None


def test_only_the_named_one_of_several_targets_has_a_pose():
    estimates = [seen("a"), seen("b"), seen("c", TargetState.UNCERTAIN)]
    assert pose_target(estimates) is None
    assert pose_target(estimates, "b").target_id == "b"
    assert pose_target(estimates, "c") is None and pose_target(estimates, "d") is None
    assert pose_target([seen("a")], "d") is None


def test_messages_from_several_threads_at_once_do_no_harm():
    where = located()
    infos = [real(camera_info(k=[f, 0.0, 322.0, 0.0, f, 236.0, 0.0, 0.0, 1.0]), CameraInfo) for f in (500.0, 700.0)]
    depth = real(depth_image(DEPTH), Image)
    stop = threading.Event()

    def feed() -> None:
        while not stop.is_set():
            for info in infos:
                where.on_camera_info(info)
                where.on_depth(depth)

    threads = [threading.Thread(target=feed) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        expected = [
            tuple(Camera.from_info(info).bearing(*Box(*BOX).center).round(9)) for info in (camera_info(), *infos)
        ]
        for turn in range(300):
            shrink = 1 + turn % 2  # another resolution each time
            arguments = (HEADER, 640 // shrink, 480 // shrink, np.array(BOX) / shrink)
            assert tuple(np.round(where.bearing(*arguments), 9)) in expected
            assert where.position(*arguments).z == pytest.approx(3.0)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not where.complaint
