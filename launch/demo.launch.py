# SPDX-License-Identifier: Apache-2.0
"""Follow a target through a video: tracker, video source and recorder; ends with the recorder.

The default video is fetched by ``make footage`` in the source checkout; start the demo from there.
"""

from pathlib import Path

from dimp_ros.apps.demo.launch import demo_arguments, demo_programs
from dimp_ros.node.launch import tracker_arguments, tracker_program

CONFIG = Path(__file__).resolve().parents[1] / "config"
ARGUMENTS = (*demo_arguments(CONFIG), *tracker_arguments(CONFIG, image="/demo/image"))


def programs(values):
    """Return what is started."""
    return [tracker_program(values, ends_launch="failure"), *demo_programs(values)]


def generate_launch_description():
    """Declare the arguments and start the demo."""
    from dimp_ros.ros_utils.launch_description import describe

    return describe(ARGUMENTS, programs)
