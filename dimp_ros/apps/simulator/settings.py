# SPDX-License-Identifier: Apache-2.0
"""The simulator node's parameters: those of its world, and of how it is shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dimp_ros.apps.simulator.autopilot import FIRMWARES
from dimp_ros.apps.simulator.config import WorldConfig
from dimp_ros.ros_utils.config_dataclass import check_settings, parameter_rows, setting
from dimp_ros.ros_utils.parameter_table import Parameter


@dataclass(frozen=True)
class ShowConfig:
    """How a world is published. Validated at construction."""

    rate: float = setting(30.0, "Images a second.", (1.0, 200.0), at_start=True)
    image_latency: float = setting(
        0.0,
        "Seconds from an image's stamp to its publication, beside what drawing it takes.",
        (0.0, 2.0),
        at_start=True,
    )
    frame_id: str = setting("camera_optical_frame", "frame_id of the images.", at_start=True)
    paused: bool = setting(False, "The target stays where it is until ~/set_playing says otherwise.", at_start=True)
    autopilot: str = setting(
        "",
        "Autopilot that speaks MAVLink and moves the vehicle by setpoints instead of by cmd_vel; empty for none.",
        choices=("", *FIRMWARES),
        at_start=True,
    )
    ground_connection: str = setting(
        "udpout:127.0.0.1:14550", "Where the autopilot finds the ground station, as for mavlink_node.", at_start=True
    )
    companion_connection: str = setting(
        "udpin:127.0.0.1:14540", "Where it finds the MAVLink camera, as for mavlink_node.", at_start=True
    )
    seed: int = setting(0, "Of drawn surfaces and random paths.", (0, 2**31 - 1), at_start=True)

    def __post_init__(self) -> None:
        check_settings(self)


def simulator_parameters() -> tuple[Parameter, ...]:
    """Return the table of the node's parameters."""
    return parameter_rows(WorldConfig) + parameter_rows(ShowConfig)


def configs(values: Mapping[str, Any]) -> tuple[WorldConfig, ShowConfig]:
    """Return the configurations that the parameters amount to.

    :raises ValueError: for values that do not fit each other.
    """
    world = {one.name: values[one.name] for one in dataclasses.fields(WorldConfig)}
    show = {one.name: values[one.name] for one in dataclasses.fields(ShowConfig)}
    made = WorldConfig(**world)
    check_configs(made, show["autopilot"])
    return made, ShowConfig(**show)


def check_configs(world: WorldConfig, autopilot: str) -> None:
    """Refuse an autopilot for what has none.

    :raises ValueError: with both values.
    """
    if autopilot and world.mode != "vehicle":
        raise ValueError(f"autopilot is {autopilot!r} and mode {world.mode!r}; only a vehicle can have one")
