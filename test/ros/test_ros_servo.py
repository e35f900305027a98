# SPDX-License-Identifier: Apache-2.0
"""The visual servo over topics; what it shares with the follower is tested there."""

from __future__ import annotations

import itertools

import pytest
from harness.ros_harness import TargetState, wait_until
from helpers.steering_operator import batch, steering, vars_of

from dimp_ros.apps.steering.servo import Servo


def test_servo_moves_in_the_frame_of_the_images_and_stops():
    with steering(Servo, "delta_twist_cmds") as operator:
        operator.wait_for_rest()
        operator.set_enabled(True)
        wait_until(lambda: operator.last()[0] > 0.02, "a motion to the right")
        assert operator.commands[-1].header.frame_id == "camera_optical" and operator.last()[5] == 0.0
        operator.state = TargetState.LOST
        operator.wait_for_rest()


def test_motion_in_another_frame_begins_at_zero():
    with steering(Servo, "delta_twist_cmds") as operator:
        operator.set_enabled(True)
        for change in ("tool_camera", "", "camera_optical"):
            operator.wait_for_motion()
            operator.frame = change
            wait_until(lambda name=change: operator.commands[-1].header.frame_id == name, "the images' frame")
        operator.wait_for_motion()
        for change in ("wrist", ""):
            operator.wait_for_motion()
            assert operator.steering.set_parameters_atomically(batch(frame_id=change)).successful
            name = change or "camera_optical"
            wait_until(lambda name=name: operator.commands[-1].header.frame_id == name, "the frame of the parameter")
        operator.wait_for_motion()
        commands = list(operator.commands)
        turns = [b for a, b in itertools.pairwise(commands) if a.header.frame_id != b.header.frame_id]
        assert len(turns) >= 5 and not any(any(vars_of(command)) for command in turns)


def test_servo_takes_the_set_point_with_its_size():
    with steering(Servo, "delta_twist_cmds") as operator:
        operator.set_enabled(True)
        operator.wait_for_motion()
        answer = operator.take_set_point()
        assert answer.success, answer.message
        operator.wait_for_rest()
        values = [operator.steering.get_parameter(f"set_point_{name}").value for name in ("x", "y", "size")]
        assert values == pytest.approx([500.0 / 640.0, 0.5, 80.0 / (640.0 * 480.0) ** 0.5])
        operator.side = 40.0
        wait_until(lambda: operator.last()[2] > 0.02, "going nearer")


def test_saturation_is_reported():
    with steering(Servo, "delta_twist_cmds", max_speed=0.01) as operator:
        operator.set_enabled(True)
        operator.wait_for_motion()
        wait_until(lambda: operator.statuses and "saturated" in operator.statuses[-1].message, "diagnostics")
        assert operator.steering.set_parameters_atomically(batch(max_speed=1.0)).successful


def test_without_camera_info_it_stands_and_says_so():
    with steering(Servo, "delta_twist_cmds") as operator:
        operator.info.k = [0.0] * 9
        assert operator.set_enabled(True).success
        operator.wait_for_rest()
        wait_until(lambda: operator.statuses and "calibrate" in operator.statuses[-1].message, "the remedy")
