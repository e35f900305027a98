# SPDX-License-Identifier: Apache-2.0
"""A world with one target and one camera, without ROS: velocities in, stepped by the caller, rendered on request.

    world = World(WorldConfig(path="sine", target_offset=(0.3, 0.0)), seed=0)
    while world.time < 20.0:
        truth = world.truth()                          # box in pixels, visible share, position, camera pose
        world.command((0, 0, 0, 0, 0, turn_left))      # linear x, y, z; angular x, y, z
        world.step(0.02)                               # seconds
        image, depth = world.render(), world.depth()   # only where they are wanted: they take some milliseconds

The same config, seed and calls give the same world: no clock is read, and nothing is random but textures and paths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dimp_ros.apps.simulator.config import WorldConfig
from dimp_ros.apps.simulator.motion import Hiding, Path
from dimp_ros.apps.simulator.rendering import SurfaceRenderer
from dimp_ros.apps.simulator.scene import BOARD_NEARNESS, Actors, WorldSurfaces
from dimp_ros.apps.simulator.vehicles import Vehicle
from dimp_ros.geometry.box import Box
from dimp_ros.geometry.camera import Camera
from dimp_ros.geometry.lens import make_lens
from dimp_ros.images.video import BgrImage

Floats = NDArray[np.float64]
_MOMENT = 0.01
"""Seconds over which the target's velocity is measured."""


class Truth(NamedTuple):
    """What is the case in the world at one time.

    :param time: seconds since the start. :param scenario: seconds that the target has moved.
    :param box: round the whole target, in pixels of the image, also where it is covered or outside of the image; None
        where there is none: it has vanished, or is behind the camera.
    :param visible: share of the target that the image shows, 0..1.
    :param position: of the target's middle in the optical frame (x right, y down, z forward), metres [3].
    :param camera_position: in the world (x forward, y left, z up), metres [3].
    :param camera_rotation: axes of the optical frame in the world, as columns [3, 3].
    :param velocity: of the camera, linear and angular [6], in the frame of the commands.
    :param target: place of the target in the world, metres [3].
    """

    time: float
    scenario: float
    box: Box | None
    visible: float
    position: Floats
    camera_position: Floats
    camera_rotation: Floats
    velocity: Floats
    target: Floats


@dataclass(frozen=True)
class CameraFields:
    """The fields of sensor_msgs/CameraInfo, under their names there; region of interest and binning are all zeros."""

    width: int
    height: int
    distortion_model: str
    d: list[float]
    k: list[float]
    r: list[float]
    p: list[float]
    binning_x: int = 0
    binning_y: int = 0
    roi: RegionFields = field(default_factory=lambda: RegionFields())


class RegionFields(NamedTuple):
    """The fields of sensor_msgs/RegionOfInterest for the whole image."""

    x_offset: int = 0
    y_offset: int = 0
    width: int = 0
    height: int = 0
    do_rectify: bool = False


class World:
    """One target, one camera, and what is behind them.

    :raises ValueError: for images that cannot be read.
    """

    def __init__(self, config: WorldConfig | None = None, seed: int = 0) -> None:
        self.config = config or WorldConfig()
        self.time = 0.0
        """Seconds since the start."""
        self.scenario = 0.0
        """Seconds that the scenario has run: the target's path, and when it is hidden, are functions of it."""
        self.playing = True
        """Whether the scenario runs on; while it does not, the target stays where it is. The camera can be moved."""
        rng = np.random.default_rng(seed)
        self._path, self._hiding = Path(self.config, rng), Hiding(self.config)
        self._carrier = Vehicle(self.config)
        self._origin, self._axes = self._carrier.position.copy(), self._carrier.rotation.copy()
        self._walked = 0.0
        self._info = _camera_fields(self.config)
        self.camera = Camera.from_info(self._info)
        self._renderer = SurfaceRenderer(self.camera)
        self.surfaces = WorldSurfaces(self.config, rng, self._fence())
        """What there is to see, for other cameras, too."""

    def command(self, twist: Sequence[float]) -> None:
        """Give a velocity now, six numbers: linear x, y, z in m/s and angular x, y, z in rad/s.

        A vehicle's is in its body frame, x forward, y left, z up, and of the angular part z counts alone; an arm's is
        the camera's, in its optical frame, x right, y down, z forward. It begins to act ``command_latency`` later and
        holds until the next one, ``command_timeout`` at most.

        :raises ValueError: for what is not six finite numbers; nothing changes then.
        """
        self._carrier.command(self.time, twist)

    def step(self, seconds: float) -> None:
        """Let time pass.

        :raises ValueError: for less than 0 seconds, or more than 60.
        """
        if not 0.0 <= seconds <= 60.0:
            raise ValueError(f"a step of {seconds!r} s must lie in 0 .. 60 s")
        if seconds > 0.0:
            self._carrier.advance(self.time, seconds)
        self.time += seconds
        before = self._place()
        self.scenario += seconds if self.playing else 0.0
        self._walked += float(np.linalg.norm(self._place() - before))

    def render(self) -> BgrImage:
        """Return what the camera sees now, [H, W, 3] uint8 BGR."""
        return self.surfaces.image(self._renderer, self._pose(), self._actors())

    def depth(self) -> NDArray[np.float32]:
        """Return the depths along the optical axis, [H, W] float32 in metres, aligned to the image."""
        return self.surfaces.depth(self._renderer, self._pose(), self._actors())

    def truth(self) -> Truth:
        """Return what is the case now."""
        position, rotation = self._pose()
        target = self._place()
        box, visible = self.surfaces.visibility(self.camera, self._pose(), self._actors())
        return Truth(
            time=self.time,
            scenario=self.scenario,
            box=box,
            visible=visible,
            position=(target - position) @ rotation,
            camera_position=position,
            camera_rotation=rotation,
            velocity=self._carrier.velocity.copy(),
            target=target,
        )

    def camera_info(self) -> CameraFields:
        """Return the camera's parameters, as its driver would publish them."""
        return self._info

    def _pose(self) -> tuple[Floats, Floats]:
        return self._carrier.position.copy(), self._carrier.rotation.copy()

    def _place(self) -> Floats:
        """Return where the target is in the world."""
        return self._place_at(self.scenario)

    def _place_at(self, scenario: float) -> Floats:
        place = np.asarray(self._origin + self._axes @ self._path.at(scenario))
        if self.config.on_ground and self.config.mode == "vehicle":
            place[2] = self.config.target_height / 2
        return place

    def _actors(self) -> Actors:
        velocity = self._place_at(self.scenario + _MOMENT) - self._place_at(max(self.scenario - _MOMENT, 0.0))
        return Actors(
            target=None if self._hiding.vanished(self.scenario) else self._place(),
            velocity=velocity / (2.0 * _MOMENT),
            walked=self._walked,
            board=self._hiding.board_offset(self.scenario),
        )

    def _fence(self) -> Floats | None:
        """Return where the fence stands, between the vehicle's start and the target in the middle of its hiding."""
        config = self.config
        if config.hide_by != "fence" or config.hide_until <= config.hide_from:
            return None
        target = self._place_at((config.hide_from + config.hide_until) / 2)
        return np.asarray(self._origin + BOARD_NEARNESS * (target - self._origin))


def _camera_fields(config: WorldConfig) -> CameraFields:
    """Return the parameters of the camera that ``config`` describes; pixels are square, its middle is the image's."""
    focal = config.width / 2 / math.tan(math.radians(config.field_of_view) / 2)
    # Matrices put the centre of the first pixel at 0.
    x, y = (config.width - 1) / 2, (config.height - 1) / 2
    coefficients = [*config.distortion, *(0.0,) * 5][:5]
    make_lens("plumb_bob", coefficients)  # raises for coefficients that make no lens
    return CameraFields(
        width=config.width,
        height=config.height,
        distortion_model="plumb_bob",
        d=coefficients,
        k=[focal, 0.0, x, 0.0, focal, y, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[focal, 0.0, x, 0.0, 0.0, focal, y, 0.0, 0.0, 0.0, 1.0, 0.0],
    )
