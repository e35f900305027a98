# SPDX-License-Identifier: Apache-2.0
"""Let ground stations point at targets, beside a tracker: ``ros2 launch dimp_ros mavlink.launch.py``.

With ``steer:=vehicle`` the follower's velocities go to the autopilot, too: see docs/mavlink.md.
"""

from pathlib import Path

from dimp_ros.apps.mavlink.settings import mavlink_parameters
from dimp_ros.apps.mavlink.transport import is_serial, split_address
from dimp_ros.ros_utils.launch_arguments import (
    Argument,
    common_arguments,
    for_parameter,
    node_program,
    parameter_file,
    secret_file,
    topic,
)

CONFIG = Path(__file__).resolve().parents[1] / "config"
FILE = "params_file"
ROWS = mavlink_parameters()


def connection(text):
    """Read where the ground station or the autopilot is."""
    if not is_serial(text):
        split_address(text)
    return text


ARGUMENTS = (
    Argument("connection", "", "where the ground station or the autopilot is: udpout:HOST:PORT ...", connection, FILE),
    for_parameter(ROWS, "system_id", FILE),
    for_parameter(ROWS, "video_delay", FILE),
    Argument("signing_key_file", "", "file with the passphrase for signing", secret_file("signing_key_file"), FILE),
    Argument("tracker", "", "name of the tracker's node", topic, FILE),
    for_parameter(ROWS, "steer", FILE),
    Argument("cmd_vel", "cmd_vel", "topic of the follower's velocities, used where steer is not none", topic),
    Argument(FILE, str(CONFIG / "mavlink.yaml"), "file with the parameters of the MAVLink camera", parameter_file),
    *common_arguments(),
)


def programs(values):
    """Return what is started."""
    names = ("connection", "system_id", "video_delay", "signing_key_file", "tracker", "steer")
    return [node_program(values, "mavlink_node", "mavlink_camera", names, {"cmd_vel": values["cmd_vel"]})]


def generate_launch_description():
    """Declare the arguments and start the MAVLink camera."""
    from dimp_ros.ros_utils.launch_description import describe

    return describe(ARGUMENTS, programs)
