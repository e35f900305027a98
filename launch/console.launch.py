# SPDX-License-Identifier: Apache-2.0
"""Start the operator console: ``ros2 launch dimp_ros console.launch.py image:=/camera/image_raw``, beside a tracker."""

from pathlib import Path

from dimp_ros.apps.console.settings import ConsoleSettings, console_parameters
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
ROWS = console_parameters()


def host(text):
    """Read an address that the page can be served on; whether it needs a token is checked by the node."""
    ConsoleSettings(host=text, token="not a secret, any will do")  # noqa: S106  raises ValueError for a wrong host
    return text


ARGUMENTS = (
    Argument("image", "camera/image_raw", "topic of the images", topic),
    Argument("host", "", "address that the page is served on; all but loopback addresses need a token", host, FILE),
    for_parameter(ROWS, "port", FILE),
    Argument("token_file", "", "file with the token that browsers must show", secret_file("token_file"), FILE),
    Argument("tracker", "", "name of the tracker's node", topic, FILE),
    for_parameter(ROWS, "image_transport", FILE, "compressed: images are taken from IMAGE/compressed"),
    Argument(FILE, str(CONFIG / "console.yaml"), "file with the parameters of the console", parameter_file),
    *common_arguments(),
)


def programs(values):
    """Return what is started."""
    names = ("host", "port", "token_file", "tracker", "image_transport")
    return [node_program(values, "console_node", "console", names, {"image": values["image"]})]


def generate_launch_description():
    """Declare the arguments and start the console."""
    from dimp_ros.ros_utils.launch_description import describe

    return describe(ARGUMENTS, programs)
