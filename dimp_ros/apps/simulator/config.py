# SPDX-License-Identifier: Apache-2.0
"""Settings of a simulated world; the node's parameters are declared from the same table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dimp_ros.ros_utils.config_dataclass import check_settings, setting

MODES = ("vehicle", "arm")
PATHS = ("static", "sine", "triangle", "circle", "random")
HIDINGS = ("board", "fence", "vanish")


def _fixed(*values: Any, **more: Any) -> Any:
    """Return a field that can be set at the start only."""
    return setting(*values, at_start=True, **more)


@dataclass(frozen=True)
class WorldConfig:
    """Settings of a `World`; the defaults are those of a vehicle, `WorldConfig.arm` has those of an arm.

    :raises ValueError: for a value outside its range, with the value, the range and the name.
    """

    mode: str = _fixed("vehicle", "What carries the camera.", choices=MODES)
    # The camera
    width: int = _fixed(640, "Width of the images, pixels.", (64, 4096))
    height: int = _fixed(480, "Height of the images, pixels.", (64, 4096))
    field_of_view: float = _fixed(60.0, "Horizontal angle of view without distortion, degrees.", (10.0, 120.0))
    distortion: tuple[float, ...] = _fixed((0.0,) * 5, "Of plumb_bob: k1, k2, p1, p2, k3.", (-2.0, 2.0))
    camera_height: float = _fixed(1.5, "Of a vehicle's camera above the ground at the start, metres.", (0.05, 100.0))
    camera_pitch: float = _fixed(0.0, "How far a vehicle's camera looks below the horizon, degrees.", (0.0, 80.0))
    # How it moves
    lag: float = _fixed(0.25, "Time constant with which velocities follow the command, seconds.", (0.0, 5.0))
    command_latency: float = _fixed(0.0, "Seconds until a command begins to act.", (0.0, 2.0))
    command_timeout: float = _fixed(0.5, "Seconds after the last command until it counts as zero.", (0.05, 10.0))
    max_speed: float = _fixed(3.0, "Fastest the camera moves, metres a second, each axis.", (0.0, 100.0))
    max_turn: float = _fixed(2.0, "Fastest the camera turns, radians a second, each axis.", (0.0, 20.0))
    # The target
    target_distance: float = _fixed(6.0, "From the camera to the target at the start, metres.", (0.05, 100.0))
    target_width: float = _fixed(1.2, "Width of the target, metres.", (0.001, 20.0))
    target_height: float = _fixed(0.9, "Height of the target, metres.", (0.001, 20.0))
    on_ground: bool = _fixed(False, "A vehicle's target stands on the ground, whatever its offset down.")
    target_offset: tuple[float, ...] = _fixed(
        (0.0, 0.0), "Where it starts, right and down of the image's middle, in image widths and heights.", (-0.5, 0.5)
    )
    path: str = _fixed("static", "How the target moves.", choices=PATHS)
    speed: float = _fixed(0.25, "Its greatest speed seen from the start, image widths a second.", (0.0, 2.0))
    period: float = _fixed(8.0, "Seconds of a swing of its path.", (0.5, 600.0))
    hide_from: float = _fixed(0.0, "When the target is hidden, seconds of the scenario.", (0.0, 86400.0))
    hide_until: float = _fixed(0.0, "When it can be seen again; hide_from or less for never hidden.", (0.0, 86400.0))
    hide_by: str = _fixed(
        "board",
        "A board is pushed before the target, a fence stands before where it is then, or it vanishes.",
        choices=HIDINGS,
    )
    # What it looks like: files, images or videos (their first image)
    scene_size: float = _fixed(60.0, "From the middle of the scene to its walls, metres.", (0.5, 1000.0))
    ground_tile: float = _fixed(1.6, "Width of the image on the ground, metres; it is repeated.", (0.01, 1000.0))
    wall_picture: str = _fixed("", "Image or video whose first image is on the walls; empty for a drawn landscape.")
    ground_picture: str = _fixed("", "The same for the ground, or the table of an arm; empty for grass, or a plain.")
    target_picture: str = _fixed(
        "", "The same for the target, with its opacity or as an ellipse; empty for a dog, or a gear on a table."
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if len(self.target_offset) != 2:
            raise ValueError(f"target_offset has {len(self.target_offset)} numbers and must have 2: right, down")
        if len(self.distortion) > 5:
            raise ValueError(f"distortion has {len(self.distortion)} numbers and must have 5 at most: k1 k2 p1 p2 k3")
        if self.path == "circle" and self.mode == "arm":
            raise ValueError("path circle goes round the camera, for mode vehicle only; take sine or random for an arm")

    @classmethod
    def arm(cls, **changes: Any) -> WorldConfig:
        """Return the settings of a camera in an arm's hand above a table, with ``changes``."""
        above_table: dict[str, Any] = {
            "mode": "arm",
            "lag": 0.05,
            "max_speed": 0.5,
            "max_turn": 1.5,
            "target_distance": 0.5,
            "target_width": 0.08,
            "target_height": 0.08,
            "scene_size": 3.0,
            "ground_tile": 0.6,
        }
        return cls(**above_table | changes)

    def with_changes(self, **changes: Any) -> WorldConfig:
        """Return these settings with ``changes``."""
        return replace(self, **changes)
