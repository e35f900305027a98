# SPDX-License-Identifier: Apache-2.0
"""Start a simulated camera, with no robot at hand: ``ros2 launch dimp_ros simulator.launch.py mode:=arm``."""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

CONFIG = Path(__file__).resolve().parents[1] / "config"
IN_FILE = "empty: as in params_file"
NUMBERS = ("speed", "rate", "image_latency", "command_latency")


def start_simulator(context: LaunchContext) -> list[Node]:
    """Make the node; an argument left empty does not override the parameter file."""
    given = {name: context.launch_configurations[name] for name in ("path", "paused", *NUMBERS)}
    overrides = {
        name: float(value) if name in NUMBERS else value == "true" if name == "paused" else value
        for name, value in given.items()
        if value
    }
    mode, camera = context.launch_configurations["mode"], context.launch_configurations["camera"]
    file = context.launch_configurations["params_file"] or str(CONFIG / f"simulator_{mode}.yaml")
    return [
        Node(
            package="dimp_ros",
            executable="simulator_node",
            name="simulator_node",
            parameters=[file, *([overrides] if overrides else [])],
            remappings=[
                ("image", f"{camera}/image_raw"),
                ("camera_info", f"{camera}/camera_info"),
                ("depth", f"{camera}/depth"),
                ("cmd_vel", LaunchConfiguration("commands")),
                ("delta_twist_cmds", LaunchConfiguration("commands")),
            ],
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start the simulator."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "mode", default_value="vehicle", choices=["vehicle", "arm"], description="what carries the camera"
            ),
            DeclareLaunchArgument(
                "params_file", default_value="", description="file with the node's parameters; empty: that of the mode"
            ),
            DeclareLaunchArgument(
                "camera", default_value="/camera", description="before the topics image_raw, camera_info and depth"
            ),
            DeclareLaunchArgument(
                "commands", default_value="/cmd_vel", description="topic of the velocities that move the camera"
            ),
            DeclareLaunchArgument(
                "path",
                default_value="",
                choices=["", "static", "sine", "triangle", "circle", "random"],
                description=f"how the target moves; {IN_FILE}",
            ),
            DeclareLaunchArgument(
                "speed", default_value="", description=f"of the target, image widths a second; {IN_FILE}"
            ),
            DeclareLaunchArgument("rate", default_value="", description=f"images a second; {IN_FILE}"),
            DeclareLaunchArgument(
                "image_latency", default_value="", description=f"seconds that images are late; {IN_FILE}"
            ),
            DeclareLaunchArgument(
                "command_latency", default_value="", description=f"seconds that commands are late; {IN_FILE}"
            ),
            DeclareLaunchArgument(
                "paused",
                default_value="",
                choices=["", "true", "false"],
                description=f"the target waits for the service simulator_node/set_playing; {IN_FILE}",
            ),
            OpaqueFunction(function=start_simulator),
        ]
    )
