# SPDX-License-Identifier: Apache-2.0
"""Launch actions from the tables of `launch_arguments`; needs launch and launch_ros of a ROS distribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import launch.logging
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown, TimerAction
from launch.events.process import ProcessExited
from launch_ros.actions import Node

from dimp_ros.ros_utils.launch_arguments import Argument, Program, misspelt, read_arguments

SETTLE_SECONDS = 0.5
"""How long an error waits for programs of an including launch file that are just being started.

After an exception launch interrupts the programs that run; one whose start is under way would be left behind.
"""


def describe(
    arguments: Sequence[Argument], programs: Callable[[Mapping[str, Any]], Sequence[Program]]
) -> LaunchDescription:
    """Declare the arguments; check all of them; then start the programs that ``programs`` makes of their values.

    Wrong arguments end the launch with one line and exit status 1 before anything has started.
    """

    def start(context: LaunchContext) -> list[Any]:
        given = context.launch_configurations
        for line in misspelt(arguments, given):
            launch.logging.get_logger("launch").warning(line)
        try:
            return [_node(program) for program in programs(read_arguments(arguments, given))]
        except ValueError as error:
            return [TimerAction(period=SETTLE_SECONDS, actions=[OpaqueFunction(function=_fail, args=[str(error)])])]

    declared = [
        DeclareLaunchArgument(one.name, default_value=one.default, description=one.description) for one in arguments
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])


def _fail(_context: LaunchContext, text: str) -> None:
    raise RuntimeError(text)


def _node(program: Program) -> Node:
    def on_exit(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
        if context.is_shutdown:
            return None
        if event.returncode:
            raise RuntimeError(f"{program.executable} ended with exit code {event.returncode}; the launch ends with it")
        return Shutdown(reason=f"{program.executable} has ended") if program.ends_launch == "always" else None

    return Node(
        package="dimp_ros",
        executable=program.executable,
        name=program.name,
        namespace=program.namespace,
        parameters=[*program.files, *([program.parameters] if program.parameters else [])],
        remappings=list(program.remappings.items()),
        arguments=["--ros-args", "--log-level", program.log_level],
        output="screen",
        on_exit=on_exit if program.ends_launch else None,
    )
