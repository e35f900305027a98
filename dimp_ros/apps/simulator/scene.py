# SPDX-License-Identifier: Apache-2.0
"""The surfaces of the world: ground, walls, the target, and what can hide it."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.apps.simulator.config import WorldConfig
from dimp_ros.apps.simulator.rendering import NEAREST, SurfaceRenderer, Texture, TexturedSurface
from dimp_ros.apps.simulator.textures import (
    GRASS,
    Bytes,
    cut_out,
    dog_images,
    gear_image,
    landscape_image,
    load_image,
    noise_image,
    planks_image,
    shadow_image,
)
from dimp_ros.geometry.box import Box
from dimp_ros.geometry.camera import Camera
from dimp_ros.images.video import BgrImage

Floats = NDArray[np.float64]
Pose = tuple[Floats, Floats]
"""Position [3] and optical axes, as columns [3, 3], of the camera in the world."""

UP = np.array([0.0, 0.0, 1.0])
BOARD_NEARNESS = 0.75
"""Position of the board, or the fence, on the way from the camera to the target."""
BOARD_SIZE = 2.0
"""Width and height of the board in those of the target, as the camera sees them."""
FENCE_SIZE = np.array([1.7, 1.25])
"""Width and height of the fence in those of the target."""
STRIDE = 0.8
"""Way in one stride of the drawn target, in its widths."""
_SAMPLES = 24


class Actors(NamedTuple):
    """What moves in the world at a time.

    :param target: its middle in the world, metres [3]; None while it has vanished. :param velocity: of the target in
        the world, m/s [3]. :param walked: the way that it has gone, metres.
    :param board: distance of the board from the line of sight, 0..1 (see `Hiding`); None while it is away.
    """

    target: Floats | None
    velocity: Floats
    walked: float = 0.0
    board: float | None = None


class WorldSurfaces:
    """Surfaces at their places.

    :param fence: where the middle of a fence stands [3]; None for none.
    """

    def __init__(self, config: WorldConfig, rng: np.random.Generator, fence: Floats | None) -> None:
        self._arm = config.mode == "arm"
        self._size = np.array([config.target_width, config.target_height])
        self._on_ground, self._height = config.on_ground, config.camera_height
        # Always drawn, so that an image from a file does not change what else is random.
        walls, table, gear = landscape_image(rng), noise_image(rng, (118, 126, 130), (150, 158, 162)), gear_image(rng)
        planks = Texture(planks_image(rng))
        ground = table if self._arm else load_image(str(GRASS))
        wide = 0.5 if config.wall_picture else 2.0  # of a wall, in its distance
        walls = load_image(config.wall_picture)[..., :3] if config.wall_picture else walls
        ground = load_image(config.ground_picture)[..., :3] if config.ground_picture else ground
        images = [gear] if self._arm else dog_images()
        if config.target_picture:
            images = [cut_out(load_image(config.target_picture))]
        self._targets = [Texture(image) for image in images], [Texture(image[:, ::-1]) for image in images]
        self._shape = _Shape(np.max([image[..., 3] for image in images], axis=0))
        self._planks, self._shadow = planks, Texture(shadow_image())
        self._backdrop = _room(config, Texture(walls), Texture(ground), wide)
        self._fence = None if fence is None else self._fence_surface(fence)

    def image(self, renderer: SurfaceRenderer, pose: Pose, actors: Actors) -> BgrImage:
        """Return what a camera at a pose sees, [H, W, 3] uint8 BGR."""
        return renderer.draw(*pose, self._backdrop, self._plates(pose, actors, shadow=True))

    def depth(self, renderer: SurfaceRenderer, pose: Pose, actors: Actors) -> NDArray[np.float32]:
        """Return the depths along the optical axis, [H, W] float32 in metres."""
        return renderer.depth(*pose, self._backdrop, self._plates(pose, actors, shadow=False))

    def visibility(self, camera: Camera, pose: Pose, actors: Actors) -> tuple[Box | None, float]:
        """Return the target's box in pixels, None where it is behind the camera, and the visible share of it."""
        if actors.target is None:
            return None, 0.0
        position, rotation = pose
        surface, mirrored = self._target_surface(pose, actors)
        edge = (surface.points(*self._shape.outline(mirrored)) - position) @ rotation
        if edge[:, 2].min() < NEAREST:
            return None, 0.0
        pixels = camera.project(edge)
        low, high = pixels.min(0), pixels.max(0)
        points = surface.points(*self._shape.inside(mirrored))
        x, y = camera.project((points - position) @ rotation).T
        seen = (x >= 0.0) & (x < camera.width) & (y >= 0.0) & (y < camera.height)
        for cover in self._covers(pose, actors):
            seen &= ~_covered(points, position, cover)
        return Box(*map(float, (*low, *(high - low)))), float(seen.mean())

    def _plates(self, pose: Pose, actors: Actors, *, shadow: bool) -> list[TexturedSurface]:
        """Return target, board and fence, in the order in which they are drawn: the farthest first."""
        plates = self._covers(pose, actors)
        if actors.target is not None:
            plates.append(self._target_surface(pose, actors)[0])
        plates.sort(key=lambda plate: -float(np.linalg.norm(plate.middle - pose[0])))
        if shadow and self._on_ground and actors.target is not None:
            plates.insert(0, self._shadow_surface(pose, actors.target))
        return plates

    def _covers(self, pose: Pose, actors: Actors) -> list[TexturedSurface]:
        """Return what may be in front of the target."""
        covers = [] if self._fence is None else [self._fence]
        if actors.board is not None and actors.target is not None:
            covers.append(self._board_surface(pose, actors.target, actors.board))
        return covers

    def _target_surface(self, pose: Pose, actors: Actors) -> tuple[TexturedSurface, bool]:
        """Return the target, and whether it is mirrored, since it goes to the left.

        It lies flat on an arm's table; otherwise it stands upright, and faces the camera from wherever that looks.
        """
        assert actors.target is not None
        if self._arm:
            right, down = np.array([0.0, -1.0, 0.0]), np.array([-1.0, 0.0, 0.0])
        else:
            right, down = _across(actors.target - pose[0]), -UP
        mirrored = bool(actors.velocity @ right < 0.0)
        textures = self._targets[mirrored]
        stride = actors.walked / (STRIDE * self._size[0]) * len(textures)
        return self._plate(actors.target, right, down, textures[int(stride) % len(textures)]), mirrored

    def _shadow_surface(self, pose: Pose, target: Floats) -> TexturedSurface:
        right = _across(target - pose[0])
        ground = target * (1.0, 1.0, 0.0) + 2e-3 * UP
        return self._plate(ground, right, np.cross(right, UP), self._shadow, self._size[0] * np.array([0.95, 0.5]))

    def _board_surface(self, pose: Pose, target: Floats, offset: float) -> TexturedSurface:
        """Return the board, at right angles to the optical axis, ``offset`` (0..1) beside the line of sight."""
        position, rotation = pose
        size = self._size * (BOARD_SIZE * BOARD_NEARNESS)
        aside = rotation[:, 0] * size[0] * 1.1 * offset
        middle = position + BOARD_NEARNESS * (target - position) + aside
        return self._plate(middle, rotation[:, 0], rotation[:, 1], self._planks, size)

    def _fence_surface(self, place: Floats) -> TexturedSurface:
        """Return the fence, so high that a camera above does not see the target over it."""
        size, top = self._size * FENCE_SIZE, self._size[1]
        size[1] = max(size[1], 1.1 * (top + (1.0 - BOARD_NEARNESS) * (self._height - top)))
        return self._plate(place * (1.0, 1.0, 0.0) + UP * size[1] / 2, _across(place), -UP, self._planks, size)

    def _plate(
        self, middle: Floats, right: Floats, down: Floats, texture: Texture, size: Floats | None = None
    ) -> TexturedSurface:
        width, height = self._size if size is None else size
        return TexturedSurface(middle - right * width / 2 - down * height / 2, right * width, down * height, texture)


class _Shape:
    """The outline of an opacity [H, W], and points inside of it, from 0 to 1 along and down."""

    def __init__(self, opacity: Bytes) -> None:
        height, width = opacity.shape
        mask = (opacity > 127).astype(np.uint8)
        rows, columns = np.nonzero(mask)
        corners = np.concatenate([np.stack([columns + dx, rows + dy], 1) for dx in (0, 1) for dy in (0, 1)])
        hull = cv2.convexHull(corners.astype(np.float32))[:, 0]
        self._outline = hull[:, 0] / width, hull[:, 1] / height
        part = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
        a, b = (grid.ravel() for grid in np.meshgrid(part, part))
        inside = mask[(b * height).astype(int), (a * width).astype(int)] > 0
        self._inside = a[inside], b[inside]

    def outline(self, mirrored: bool) -> tuple[Floats, Floats]:
        """Return the corners of the convex hull, along and down [N]."""
        return _mirrored(self._outline) if mirrored else self._outline

    def inside(self, mirrored: bool) -> tuple[Floats, Floats]:
        """Return points inside, along and down [N]."""
        return _mirrored(self._inside) if mirrored else self._inside


def _mirrored(points: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    return 1.0 - points[0], points[1]


def _across(away: Floats) -> Floats:
    """Return the horizontal direction to the right of someone who looks along ``away``."""
    right = np.cross(away, UP)
    length = np.linalg.norm(right)
    return right / length if length > 1e-9 else np.array([0.0, -1.0, 0.0])


def _room(config: WorldConfig, walls: Texture, ground: Texture, wide: float) -> list[TexturedSurface]:
    """Return the ground and four walls round the origin, each repeated without end.

    :param wide: width of the walls' image, in the distance of a wall.
    """
    tile, reach = config.ground_tile, config.scene_size
    # Seen by someone who looks along x: the image's right is -y, its lower edge is nearer. Its middle is at the
    # origin, and it is under a target that lies on it, by a little.
    along, down = np.array([0.0, -tile, 0.0]), np.array([-tile / ground.aspect, 0.0, 0.0])
    below = np.array([0.0, 0.0, -1e-3 * config.target_distance if config.mode == "arm" else 0.0])
    surfaces = [TexturedSurface(below - (along + down) / 2, along, down, ground)]
    width = wide * reach
    height = width / walls.aspect
    for x, y in ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)):
        outward = np.array([x, y, 0.0])
        right = np.cross(outward, UP)
        surfaces.append(TexturedSurface((outward - right) * reach + UP * height, right * width, -UP * height, walls))
    return surfaces


def _covered(points: Floats, position: Floats, cover: TexturedSurface) -> NDArray[np.bool_]:
    """Return which of ``points`` [N, 3] have ``cover`` between them and a camera at ``position``."""
    matrix = cover.solved(position, np.eye(3))
    if matrix is None:
        return np.zeros(len(points), np.bool_)
    a, b, inverse = matrix @ (points - position).T
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = a / inverse, b / inverse
    # With a ray to the very point, the inverse of its share of the way to the cover.
    return np.asarray((inverse > 1.0) & (a >= 0.0) & (a <= 1.0) & (b >= 0.0) & (b <= 1.0))
