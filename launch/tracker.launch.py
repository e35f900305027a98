# SPDX-License-Identifier: Apache-2.0
"""Start the tracker on an image topic: ``ros2 launch dimp_ros tracker.launch.py image:=/camera/image_raw``."""

from pathlib import Path

from dimp_ros.node.launch import tracker_arguments, tracker_program

ARGUMENTS = tracker_arguments(Path(__file__).resolve().parents[1] / "config")


def programs(values):
    """Return what is started."""
    return [tracker_program(values)]


def generate_launch_description():
    """Declare the arguments and start the tracker."""
    from dimp_ros.ros_utils.launch_description import describe

    return describe(ARGUMENTS, programs)
