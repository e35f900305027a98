# SPDX-License-Identifier: Apache-2.0
"""From the tracker's messages to the observation that steers."""

from __future__ import annotations

import pytest

pytest.importorskip("dimp_ros.msg", reason="the interfaces are not built: `make setup`, or colcon")

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import CameraInfo

from dimp_ros.apps.steering.follower_control import camera_of_view
from dimp_ros.apps.steering.inputs import SteeringInputs
from dimp_ros.msg import TargetState, TargetStateArray


def targets(*names: str, second: int = 10, width: int = 640) -> TargetStateArray:
    """Return what the tracker says of an image of a second."""
    array = TargetStateArray(image_width=width, image_height=480)
    array.header.stamp, array.header.frame_id = Time(sec=second), "lens"
    for name in names:
        state = TargetState(header=array.header, id=name, state=TargetState.TRACKING, confidence=0.5, age=0.25)
        state.bbox.center.position.x, state.bbox.center.position.y = 50.0, 40.0
        state.bbox.size_x, state.bbox.size_y = 20.0, 10.0
        array.targets.append(state)
    return array


def info(width: int = 640, second: int = 10) -> CameraInfo:
    """Return a calibration."""
    message = CameraInfo(width=width, height=480)
    message.header.stamp = Time(sec=second)
    message.k = [600.0, 0.0, 319.5, 0.0, 600.0, 239.5, 0.0, 0.0, 1.0]
    return message


def pose(second: int, z: float, frame: str = "lens") -> PoseStamped:
    """Return a pose of an image of a second."""
    message = PoseStamped()
    message.header.stamp, message.header.frame_id, message.pose.position.z = Time(sec=second), frame, z
    return message


def test_only_target_is_observed_with_all_its_fields():
    inputs = SteeringInputs()
    assert inputs.observation is None and "does the tracker run" in inputs.absence
    inputs.on_targets(targets("cup"), sent=5.0)
    seen = inputs.observation
    assert seen.target_id == "cup" and seen.state == TargetState.TRACKING and seen.box == (40.0, 35.0, 20.0, 10.0)
    assert (seen.stamp, seen.age, seen.sent, seen.confidence) == (10_000_000_000, 0.25, 5.0, 0.5)
    assert inputs.frame == "lens" and seen.position is None


def test_only_the_named_target_is_observed():
    inputs = SteeringInputs()
    inputs.on_targets(targets("cup", "plate"), 5.0)
    assert inputs.observation is None and "2 targets (cup, plate): set target_id" in inputs.absence
    inputs.configure("plate", False, None)
    inputs.on_targets(targets("cup", "plate"), 5.0)
    assert inputs.observation.target_id == "plate"
    inputs.on_targets(targets("cup"), 5.0)
    assert inputs.observation is None and "no target 'plate', only: cup" in inputs.absence
    inputs.on_targets(targets(), 5.0)
    assert inputs.observation is None


def test_another_name_voids_what_was_heard_of_the_old_one():
    inputs = SteeringInputs()
    inputs.on_targets(targets("cup"), 5.0)
    inputs.configure("plate", False, None)
    assert inputs.observation is None


def test_several_publishers_of_targets_give_no_observation():
    inputs = SteeringInputs()
    inputs.on_targets(targets("cup"), 5.0)
    inputs.on_publishers(2, 1)
    assert inputs.observation is None and "2 nodes publish targets" in inputs.absence
    inputs.on_publishers(1, 1)
    assert inputs.observation is not None


def other_focal_length() -> CameraInfo:
    """Return a camera_info of another focal length."""
    message = info()
    message.k[0] = 60.0
    return message


def skewed() -> CameraInfo:
    """Return a camera_info that cannot be used."""
    message = info()
    message.k[1] = 1000.0
    return message


@pytest.mark.parametrize("another", [info(width=320), other_focal_length(), skewed()], ids=["size", "focal", "skew"])
def test_publishers_of_different_camera_infos_give_no_observation(another):
    inputs = SteeringInputs()
    inputs.on_publishers(1, 2)
    for second in (10, 11):
        inputs.on_camera_info(info(second=second))
        inputs.on_targets(targets("cup", second=second), 5.0)
        assert inputs.observation is not None, "two that say the same are no contradiction"
    for second in (12, 13):
        another.header.stamp = Time(sec=second)
        inputs.on_camera_info(another)
        inputs.on_camera_info(info(second=second))
        inputs.on_targets(targets("cup", second=second + 1), 5.0)
        assert inputs.observation is None and "2 nodes publish camera_info, and not the same" in inputs.absence
    inputs.configure("", False, camera_of_view(640, 480, 60.0))
    assert inputs.observation is not None, "camera_info is not used"
    inputs.configure("", False, None)
    inputs.on_publishers(1, 1)
    assert inputs.camera is None, "until it is known whose is left"
    inputs.on_camera_info(info(second=14))
    inputs.on_targets(targets("cup", second=15), 5.0)
    assert inputs.camera.fx == 600.0 and inputs.observation is not None


def test_pose_is_used_for_the_image_of_its_stamp_only():
    inputs = SteeringInputs()
    inputs.on_targets(targets("cup"), 5.0)
    inputs.on_pose(pose(9, 2.0))
    assert inputs.observation.position is None
    inputs.on_pose(pose(10, 3.0))
    assert inputs.observation.position == (0.0, 0.0, 3.0)
    inputs.on_targets(targets("cup", second=11), 5.1)
    assert inputs.observation.position is None


def test_another_frame_id_of_the_images_gives_no_observation_at_first():
    inputs = SteeringInputs()
    for number, frame in enumerate(("a", "a", "b", "a", "", "", "b" * 10_000)):
        heard = targets("cup", second=10 + number)
        heard.header.frame_id = frame
        inputs.on_targets(heard, 5.0 + number)
        seen = inputs.observation is not None
        assert seen == (number in (0, 1, 5)), number
        if not seen:
            assert "frame_id changed" in inputs.absence and len(inputs.absence) < 300


def test_pose_in_another_frame_is_not_used():
    inputs = SteeringInputs()
    inputs.on_targets(targets("cup"), 5.0)
    for frame in ("map", "", "lens "):
        inputs.on_pose(pose(10, 3.0, frame))
        assert inputs.observation.position is None


def test_changed_camera_invalidates_earlier_boxes():
    inputs = SteeringInputs()
    inputs.on_camera_info(info())
    inputs.on_targets(targets("cup"), 5.0)
    inputs.on_camera_info(info(second=11))
    assert inputs.observation is not None and inputs.camera.width == 640
    inputs.on_camera_info(info(320, second=12))
    assert inputs.observation is None and inputs.camera.width == 320
    inputs.on_targets(targets("cup", second=12, width=320), 5.2)
    assert inputs.observation is not None


def test_given_camera_overrides_camera_info():
    inputs = SteeringInputs()
    bad = info()
    bad.k = [0.0] * 9
    inputs.on_camera_info(bad)
    assert inputs.camera is None and "calibrate" in inputs.camera_trouble
    given = camera_of_view(320, 240, 60.0)
    inputs.configure("", False, given)
    assert inputs.camera is given
    inputs.configure("", False, None)
    assert inputs.camera is None


def test_rectified_images_are_those_of_the_projection_matrix():
    inputs = SteeringInputs()
    message = info()
    message.p = [500.0, 0.0, 319.5, 0.0, 0.0, 500.0, 239.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    inputs.on_camera_info(message)
    assert inputs.camera.fx == 600.0
    inputs.configure("", True, None)
    assert inputs.camera.fx == 500.0


@pytest.mark.parametrize(
    "size", [(1280, 960), (320, 240), (640, 960), (480, 640), (642, 480), (0, 0), (640, 0), (0, 480)]
)
def test_boxes_of_images_of_another_size_are_ignored(size):
    inputs = SteeringInputs()
    inputs.on_camera_info(info())
    message = targets("cup")
    message.image_width, message.image_height = size
    inputs.on_targets(message, 5.0)
    assert inputs.observation is None and f"{size[0]} x {size[1]}" in inputs.absence
    if all(size):
        inputs.configure("", False, camera_of_view(*size, 60.0))
        assert inputs.observation is not None, "a camera of that size is given instead"
    inputs.configure("", False, None)
    assert inputs.observation is None
    message.image_width, message.image_height = 640, 480
    inputs.on_targets(message, 5.1)
    assert inputs.observation is not None


def test_camera_info_that_comes_after_the_boxes_is_compared_too():
    inputs = SteeringInputs()
    message = targets("cup")
    message.image_width, message.image_height = 1280, 960
    inputs.on_targets(message, 5.0)
    inputs.on_camera_info(info())
    assert inputs.observation is None


@pytest.mark.parametrize("second", [0, 1, 9, 11])
def test_target_with_another_stamp_than_its_message_is_ignored(second):
    inputs = SteeringInputs()
    message = targets("cup")
    message.targets[0].header = targets(second=second).header
    inputs.on_targets(message, 5.0)
    assert inputs.observation is None and f"differ by {second - 10}" in inputs.absence
    inputs.on_targets(targets("cup"), 5.1)
    assert inputs.observation is not None
