# SPDX-License-Identifier: Apache-2.0
"""Launch arguments of the follower and of the servo. Imports neither launch nor rclpy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dimp_ros.ros_utils.launch_arguments import Argument, Program, beside, boolean, overrides, parameter_file


def steering_arguments(config: Path, controller: str, output: Argument) -> tuple[Argument, ...]:
    """Return the arguments that a controller has beside the tracker's.

    :param config: folder of parameter files. :param controller: ``follower`` or ``servo``.
    :param output: argument with the topic of its velocities.
    """
    return (
        output,
        Argument(
            f"{controller}_file",
            str(config / f"{controller}.yaml"),
            f"file with the parameters of the {controller}",
            parameter_file,
        ),
        Argument("tracker", "true", "whether the tracker is started too", boolean),
    )


def steering_program(values: Mapping[str, Any], controller: str, commands: str, output: str) -> Program:
    """Return the controller as the values of the arguments ask for it.

    :param commands: topic of its velocities, as its code calls it. :param output: argument with the topic they go to.
    """
    return Program(
        executable=f"{controller}_node",
        name=controller,
        files=(values[f"{controller}_file"],),
        parameters=overrides(values, "use_sim_time"),
        remappings={
            "camera_info": values["camera_info"] or beside(values["image"], "camera_info"),
            commands: values[output],
        },
        namespace=values["namespace"],
        log_level=values["log_level"],
    )
