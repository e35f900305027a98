# SPDX-License-Identifier: Apache-2.0
"""Start a simulated camera instead of a robot's: ``ros2 launch dimp_ros simulator.launch.py mode:=arm``."""

from pathlib import Path

from dimp_ros.apps.simulator.config import MODES, WorldConfig
from dimp_ros.apps.simulator.settings import check_configs, simulator_parameters
from dimp_ros.ros_utils.launch_arguments import (
    Argument,
    Program,
    choice,
    common_arguments,
    for_parameter,
    or_empty,
    overrides,
    parameter_file,
    topic,
)

CONFIG = Path(__file__).resolve().parents[1] / "config"
FILE = "params_file"
NAMES = ("path", "speed", "rate", "image_latency", "command_latency", "paused", "autopilot")
ARGUMENTS = (
    Argument("mode", "", f"what carries the camera: {', '.join(MODES)}; without a file vehicle", choice(*MODES), FILE),
    Argument(FILE, "", "file with the parameters of the simulator; empty: that of the mode", or_empty(parameter_file)),
    Argument("camera", "camera", "before the topics image_raw, camera_info and depth", topic),
    Argument("commands", "cmd_vel", "topic of the velocities that move the camera", topic),
    *(for_parameter(simulator_parameters(), name, FILE) for name in NAMES),
    *common_arguments(),
)


def programs(values):
    """Return what is started."""
    mode, file = values["mode"] or "vehicle", values[FILE]
    if not file:  # else the node checks what the file makes of them
        check_configs(WorldConfig(mode=mode, path=values["path"] or "static"), values["autopilot"] or "")
    camera, commands = values["camera"], values["commands"]
    return [
        Program(
            executable="simulator_node",
            name="simulator_node",
            files=(file or str(CONFIG / f"simulator_{mode}.yaml"),),
            parameters=overrides(values, *(["mode"] if file else []), *NAMES, "use_sim_time"),
            remappings={
                "image": f"{camera}/image_raw",
                "camera_info": f"{camera}/camera_info",
                "depth": f"{camera}/depth",
                "cmd_vel": commands,
                "delta_twist_cmds": commands,
            },
            namespace=values["namespace"],
            log_level=values["log_level"],
        )
    ]


def generate_launch_description():
    """Declare the arguments and start the simulator."""
    from dimp_ros.ros_utils.launch_description import describe

    return describe(ARGUMENTS, programs)
