# SPDX-License-Identifier: Apache-2.0
"""What there is to see: ground, walls, the target, and a board that can be pushed before it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dimp_ros.apps.simulator.config import WorldConfig
from dimp_ros.apps.simulator.rendering import NEAREST, Renderer, Surface, Texture
from dimp_ros.apps.simulator.textures import (
    brick_picture,
    load_picture,
    noise_picture,
    opaque,
    target_picture,
    with_ellipse,
)
from dimp_ros.geometry.box import Box
from dimp_ros.geometry.camera import Camera
from dimp_ros.images.video import Picture

Floats = NDArray[np.float64]
Pose = tuple[Floats, Floats]
"""Position [3] and optical axes, as columns [3, 3], of the camera in the world."""

UP = np.array([0.0, 0.0, 1.0])
BOARD_NEARNESS = 0.75
"""Where the board is on the way from the camera to the target."""
BOARD_SIZE = 2.0
"""Its width and height in those of the target, as the camera sees them."""
_SAMPLES = 24


class Scene:
    """Surfaces at their places, for one camera."""

    def __init__(self, config: WorldConfig, camera: Camera, rng: np.random.Generator) -> None:
        self._arm = config.mode == "arm"
        self._size = np.array([config.target_width, config.target_height])
        self._camera, self._renderer = camera, Renderer(camera)
        # Always made, so that a picture from a file does not change what else is random.
        walls, ground, target = (
            brick_picture(rng),
            noise_picture(rng, (55, 75, 75), (150, 175, 170)),
            target_picture(rng),
        )
        walls = load_picture(config.wall_picture) if config.wall_picture else walls
        ground = load_picture(config.ground_picture) if config.ground_picture else ground
        target = load_picture(config.target_picture) if config.target_picture else target
        self._target_texture = Texture(with_ellipse(target))
        self._board_texture = Texture(opaque(noise_picture(rng, (40, 60, 80), (70, 100, 130), 256)))
        self._backdrop = _room(config, Texture(walls), Texture(ground), walls.shape, ground.shape)
        part = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
        a, b = (grid.ravel() for grid in np.meshgrid(part, part))
        inside = (2 * a - 1) ** 2 + (2 * b - 1) ** 2 <= 1.0
        self._samples = a[inside], b[inside]

    def image(self, pose: Pose, target: Floats | None, board: Floats | None) -> Picture:
        """Return what the camera sees, [H, W, 3] uint8 BGR."""
        return self._renderer.draw(*pose, self._backdrop, self._plates(pose, target, board))

    def depth(self, pose: Pose, target: Floats | None, board: Floats | None) -> NDArray[np.float32]:
        """Return the depths along the optical axis, [H, W] float32 in metres."""
        return self._renderer.depth(*pose, self._backdrop, self._plates(pose, target, board))

    def look(self, pose: Pose, target: Floats, board: Floats | None) -> tuple[Box | None, float]:
        """Return the target's box in pixels, None where it is behind the camera, and the share of it in sight."""
        position, rotation = pose
        surface = self._target_surface(pose, target)
        edge = (surface.ellipse() - position) @ rotation
        if edge[:, 2].min() < NEAREST:
            return None, 0.0
        pixels = self._camera.project(edge)
        low, high = pixels.min(0), pixels.max(0)
        points = surface.points(*self._samples)
        x, y = self._camera.project((points - position) @ rotation).T
        seen = (x >= 0.0) & (x < self._camera.width) & (y >= 0.0) & (y < self._camera.height)
        if board is not None:
            seen &= ~_covered(points, position, self._board_surface(pose, board))
        return Box(*map(float, (*low, *(high - low)))), float(seen.mean())

    def board_place(self, pose: Pose, target: Floats, offset: float) -> Floats:
        """Return the middle of the board, ``offset`` (0..1) on its way aside from the line of sight to the target."""
        position, rotation = pose
        aside = rotation[:, 0] * self._board_size()[0] * 1.1 * offset
        return np.asarray(position + BOARD_NEARNESS * (target - position) + aside)

    def _board_size(self) -> Floats:
        return self._size * (BOARD_SIZE * BOARD_NEARNESS)

    def _plates(self, pose: Pose, target: Floats | None, board: Floats | None) -> list[Surface]:
        """Return the target and what is before it, in the order in which they are drawn."""
        plates = [] if target is None else [self._target_surface(pose, target)]
        return plates if board is None else [*plates, self._board_surface(pose, board)]

    def _target_surface(self, pose: Pose, place: Floats) -> Surface:
        """Return the target: flat on an arm's table; else upright, and with its face to the camera like a ball's."""
        if self._arm:
            return self._plate(place, np.array([0.0, -1.0, 0.0]), np.array([-1.0, 0.0, 0.0]), self._target_texture)
        away = (place - pose[0]) * np.array([1.0, 1.0, 0.0])
        right = np.cross(away, UP)
        length = np.linalg.norm(right)
        right = right / length if length > 1e-9 else np.array([0.0, -1.0, 0.0])
        return self._plate(place, right, -UP, self._target_texture)

    def _board_surface(self, pose: Pose, place: Floats) -> Surface:
        """Return the board, at right angles to the optical axis."""
        return self._plate(place, pose[1][:, 0], pose[1][:, 1], self._board_texture, self._board_size())

    def _plate(
        self, middle: Floats, right: Floats, down: Floats, texture: Texture, size: Floats | None = None
    ) -> Surface:
        width, height = self._size if size is None else size
        return Surface(middle - right * width / 2 - down * height / 2, right * width, down * height, texture)


def _room(
    config: WorldConfig, walls: Texture, ground: Texture, wall_shape: tuple[int, ...], ground_shape: tuple[int, ...]
) -> list[Surface]:
    """Return the ground and four walls round the origin, each repeated without end."""
    tile, reach = config.ground_tile, config.scene_size
    depth = tile * ground_shape[0] / ground_shape[1]
    # Seen by someone who looks along x: the picture's right is -y, its lower edge is nearer. Its middle is at the
    # origin, and it is under a target that lies on it, by a little.
    along, down = np.array([0.0, -tile, 0.0]), np.array([-depth, 0.0, 0.0])
    below = np.array([0.0, 0.0, -1e-3 * config.target_distance if config.mode == "arm" else 0.0])
    surfaces = [Surface(below - (along + down) / 2, along, down, ground)]
    wide = reach / 2
    high = wide * wall_shape[0] / wall_shape[1]
    for x, y in ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)):
        outward = np.array([x, y, 0.0])
        surfaces.append(Surface(outward * reach, np.cross(outward, UP) * wide, -UP * high, walls))
    return surfaces


def _covered(points: Floats, position: Floats, board: Surface) -> NDArray[np.bool_]:
    """Say of ``points`` [N, 3] whether ``board`` is between them and a camera at ``position``."""
    matrix = board.solved(position, np.eye(3))
    if matrix is None:
        return np.zeros(len(points), np.bool_)
    a, b, inverse = matrix @ (points - position).T
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = a / inverse, b / inverse
    # With a ray to the very point, the inverse of its share of the way to the board.
    return np.asarray((inverse > 1.0) & (a >= 0.0) & (a <= 1.0) & (b >= 0.0) & (b <= 1.0))
