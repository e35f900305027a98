# SPDX-License-Identifier: Apache-2.0
"""A film of a simulated loop: from outside and through the vehicle's camera, side by side.

The view from outside is drawn after the loop, from where the simulator said that vehicle and target were.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from run_loop_demo import CONFIG

from dimp_ros.apps.simulator.metrics import CommandRecord, LoopRecording, StateRecord
from dimp_ros.apps.simulator.recorder import LoopPlan, LoopRecorder
from dimp_ros.apps.simulator.rendering import SurfaceRenderer
from dimp_ros.apps.simulator.scene import Actors
from dimp_ros.apps.simulator.settings import configs, simulator_parameters
from dimp_ros.apps.simulator.world import World
from dimp_ros.geometry.box import Box
from dimp_ros.geometry.camera import Camera
from dimp_ros.images.conversion import to_bgr
from dimp_ros.images.overlay import COLOURS
from dimp_ros.images.stamps import NANOSECONDS, stamp_ns
from dimp_ros.msg import TargetStateArray
from dimp_ros.ros_utils.qos import reliable_qos
from dimp_ros.ros_utils.spin import Finish

PANEL = (440, 330)
STILLS = tuple(f"film_{number}.png" for number in range(9))
MOST_IMAGES = 1200
HELD_NANOSECONDS = 150_000_000
"""An image that the tracker skipped has the box of an earlier one, if that is not older."""

Floats = NDArray[np.float64]
SUN = np.array([-0.35, 0.45, 0.82])
INNER, OUTER = np.array([0.0, 0.21, 0.0]), np.array([0.0, 0.31, 0.0])
"""Sides of the rover's wheels."""

Face = tuple[Floats, tuple[int, int, int]]


class FilmScene(NamedTuple):
    """What is drawn.

    :param parameters: name of the simulator's parameter file. :param position, aim: where the camera outside is, and
        what it looks at, metres [3]. :param flies: whether the vehicle is a drone; otherwise a rover.
    """

    parameters: str
    position: Floats
    aim: Floats
    flies: bool


ROVER = FilmScene("simulator_vehicle.yaml", np.array([-3.2, 1.25, 1.9]), np.array([2.8, -0.55, 0.12]), False)
DRONE = FilmScene("simulator_drone.yaml", np.array([-3.6, 2.4, 4.7]), np.array([3.2, -1.3, 0.7]), True)


class Taken(NamedTuple):
    """One image of the vehicle's camera, the tracker's box in it, and positions [3] and axes [3, 3] in the world."""

    time: float
    image: NDArray[np.uint8]
    box: Box | None
    camera: Floats
    axes: Floats
    target: Floats


class FilmRecorder(LoopRecorder):
    """Keeps the images and the poses of a loop, and makes the film once it has ended: `write_film`."""

    scene = ROVER
    results = (*LoopRecorder.results, *STILLS)

    def __init__(self, plan: LoopPlan, finish: Finish, **node_options: Any) -> None:
        self._pictures: dict[int, NDArray[np.uint8]] = {}
        self._cameras: dict[int, PoseStamped] = {}
        self._positions: dict[int, PoseStamped] = {}
        self._boxes: dict[int, Box] = {}
        super().__init__(plan, finish, **node_options)
        for topic, notes in (("camera_pose", self._cameras), ("ground_truth_pose", self._positions)):
            self.create_subscription(
                PoseStamped,
                topic,
                lambda pose, notes=notes: notes.update({stamp_ns(pose.header.stamp): pose}),
                reliable_qos(200),
                callback_group=MutuallyExclusiveCallbackGroup(),
            )

    def _on_image(self, image: Any) -> None:
        super()._on_image(image)
        if self._recording is not None and len(self._pictures) < MOST_IMAGES:
            self._pictures[stamp_ns(image.header.stamp)] = to_bgr(image).copy()

    def _on_targets(self, message: TargetStateArray) -> None:
        super()._on_targets(message)
        for target in message.targets:
            centre, width, height = target.bbox.center.position, target.bbox.size_x, target.bbox.size_y
            if width > 0.0:
                self._boxes[stamp_ns(message.header.stamp)] = Box.from_center(centre.x, centre.y, width, height)

    def _report(self, recording: LoopRecording) -> int:
        code = super()._report(recording)
        taken = []
        for stamp in sorted(self._pictures.keys() & self._cameras.keys() & self._positions.keys()):
            pose = self._cameras[stamp].pose
            place, axes = _vector(pose.position), _rotation(pose.orientation)
            seen = _vector(self._positions[stamp].pose.position)
            image = self._pictures[stamp]
            known = [earlier for earlier in self._boxes if stamp - HELD_NANOSECONDS <= earlier <= stamp]
            box = self._boxes[max(known)] if known else None
            taken.append(Taken(stamp / NANOSECONDS, image, box, place, axes, place + axes @ seen))
        self.write_film(taken, recording)
        return code

    def write_film(self, taken: list[Taken], recording: LoopRecording) -> None:
        """Write the film to a file, and some of its images."""
        raise NotImplementedError

    def write_stills(self, frames: Sequence[NDArray[np.uint8]]) -> None:
        """Write some images of the film."""
        for name, index in zip(STILLS, np.linspace(0, len(frames) - 1, len(STILLS)).astype(int), strict=True):
            cv2.imwrite(str(self._files.path(name)), frames[index])


def film_frames(
    scene: FilmScene, taken: list[Taken], recording: LoopRecording, rate: float, seconds: float
) -> Iterator[NDArray[np.uint8]]:
    """Yield ``rate`` images a second of the first ``seconds`` after the loop was closed."""
    outside = OutsideView(scene)
    walked, due = 0.0, recording.enabled
    said_times, command_times = [one.time for one in recording.states], [one.time for one in recording.commands]
    for before, now in pairwise(taken):
        step = now.target - before.target
        walked += float(np.linalg.norm(step))
        if now.time < due or now.time > recording.enabled + seconds:
            continue
        due += 1.0 / rate
        view = outside.view(now, Actors(now.target, step / (now.time - before.time), walked))
        said = recording.states[max(0, bisect_right(said_times, now.time) - 1)]
        command = recording.commands[max(0, bisect_right(command_times, now.time) - 1)]
        yield compose(view, now, said, command)


def compose(view: NDArray[np.uint8], taken: Taken, said: StateRecord, command: CommandRecord) -> NDArray[np.uint8]:
    """Put both views side by side, with the tracker's last state and the follower's last command."""
    image, colour = taken.image.copy(), COLOURS[said.state]
    if taken.box is not None and said.state != "LOST":
        x, y, w, h = map(round, taken.box)
        cv2.rectangle(image, (x, y), (x + w, y + h), (0, 0, 0), 5, cv2.LINE_AA)
        cv2.rectangle(image, (x, y), (x + w, y + h), colour, 3, cv2.LINE_AA)
    small = [cv2.resize(one, PANEL, interpolation=cv2.INTER_AREA) for one in (view, image)]
    both = PillowImage.fromarray(np.hstack([small[0], np.full((PANEL[1], 4, 3), 255, np.uint8), small[1]])[..., ::-1])
    draw = ImageDraw.Draw(both, "RGBA")
    font = ImageFont.load_default(size=15)
    label(draw, (8, 8), "outside", font)
    label(draw, (PANEL[0] + 12, 8), "through its camera", font)
    number = f" {said.confidence:.2f}" if said.state != "LOST" else ""
    label(draw, (PANEL[0] + 12, PANEL[1] - 30), said.state + number, font, colour[::-1])
    forward, yaw = command.twist[0], command.twist[5]
    text = "stands still" if command.zero else f"{forward:+.2f} m/s   {math.degrees(yaw):+.0f}°/s"
    label(draw, (8, PANEL[1] - 30), text, font)
    return np.ascontiguousarray(np.asarray(both)[..., ::-1])


def label(draw: Any, at: tuple[int, int], text: str, font: Any, colour: tuple[int, int, int] = (255, 255, 255)) -> None:
    """Write a text on a dark plate."""
    left, top, right, bottom = draw.textbbox(at, text, font=font)
    draw.rounded_rectangle((left - 5, top - 4, right + 5, bottom + 4), 5, fill=(20, 24, 28, 190))
    draw.text(at, text, font=font, fill=colour)


class OutsideView:
    """The view of a camera that stands outside."""

    def __init__(self, scene: FilmScene) -> None:
        width, height = PANEL[0] * 3 // 2, PANEL[1] * 3 // 2
        focal = width / 2 / math.tan(math.radians(27.5))
        self._camera = Camera.from_matrix(width, height, (focal, 0, width / 2, 0, focal, height / 2, 0, 0, 1))
        self._renderer = SurfaceRenderer(self._camera)
        values = {row.name: row.default for row in simulator_parameters()}
        config, show = configs(values | simulator_values(scene.parameters))
        self._world = World(config, show.seed)
        self._flies = scene.flies
        position, aim = scene.position, scene.aim
        ahead = (aim - position) / np.linalg.norm(aim - position)
        right = np.cross(ahead, (0.0, 0.0, 1.0))
        right /= np.linalg.norm(right)
        self._pose = position, np.stack([right, np.cross(ahead, right), ahead], axis=1)

    def view(self, taken: Taken, actors: Actors) -> NDArray[np.uint8]:
        """Return what it sees."""
        image = self._world.surfaces.image(self._renderer, self._pose, actors)
        ahead = taken.axes[:, 2] * (1.0, 1.0, 0.0)
        ahead /= np.linalg.norm(ahead)
        axes = np.stack([ahead, np.cross((0.0, 0.0, 1.0), ahead), (0.0, 0.0, 1.0)], axis=1)
        ground = taken.camera * (1.0, 1.0, 0.0)
        half = math.radians(self._world.config.field_of_view) / 2
        far, near = (8.0, 3.0) if self._flies else (5.0, 0.0)
        rays = [np.array([math.cos(turn), math.sin(turn), 0.01]) for turn in np.linspace(-half, half, 12)]
        edge = [far * one for one in rays] + [near * one for one in reversed(rays)]
        self._blend(image, [ground + axes @ (one * (1.0, 1.0, 0.0)) for one in edge], (255, 250, 220), 0.22)
        circle = np.linspace(0.0, 2.0 * math.pi, 32)
        shade = np.stack([0.5 * np.cos(circle), 0.38 * np.sin(circle), 0.01 + 0 * circle], axis=1)
        self._blend(image, [ground + axes @ one for one in shade], (0, 0, 0), 0.45)
        base, body = (taken.camera, drone_faces()) if self._flies else (ground, rover_faces())
        faces = [(base + points @ axes.T, colour) for points, colour in body]
        position = self._pose[0]
        for points, colour in sorted(faces, key=lambda face: -float(np.linalg.norm(face[0].mean(0) - position))):
            normal = np.cross(points[1] - points[0], points[2] - points[1])
            normal /= np.linalg.norm(normal)
            if self._flies or normal @ (points.mean(0) - position) < 0.0:
                light = 0.55 + 0.5 * max(0.0, float(normal @ SUN))
                shaded = [min(255.0, light * value) for value in colour]
                cv2.fillConvexPoly(image, self._pixels(points), shaded, cv2.LINE_AA, 4)
        return image

    def _blend(self, image: NDArray[np.uint8], points: list[Floats], colour: tuple[int, ...], opacity: float) -> None:
        over = image.copy()
        cv2.fillConvexPoly(over, self._pixels(np.array(points)), colour, cv2.LINE_AA, 4)
        cv2.addWeighted(over, opacity, image, 1.0 - opacity, 0.0, dst=image)

    def _pixels(self, points: Floats) -> NDArray[np.int32]:
        pixels = self._camera.project((points - self._pose[0]) @ self._pose[1])
        return np.round((pixels - 0.5) * 16).astype(np.int32)


def box_faces(middle: Any, size: Any, colour: tuple[int, int, int]) -> list[Face]:
    """Return the faces of a box, counter-clockwise from outside."""
    faces = []
    half = np.array(size) / 2
    for axis in range(3):
        for sign in (-1.0, 1.0):
            normal = np.zeros(3)
            normal[axis] = sign
            u, v = (np.eye(3)[index] for index in range(3) if index != axis)
            corners = [normal * half + a * u * half + b * v * half for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
            if np.cross(corners[1] - corners[0], corners[2] - corners[1]) @ normal < 0.0:
                corners.reverse()
            faces.append((np.array(middle) + np.array(corners), colour))
    return faces


def drone_faces() -> list[Face]:
    """Return the flat faces of a drone in its body frame, whose origin is its camera, and their BGR colours."""
    faces = box_faces((-0.22, 0.0, 0.10), (0.44, 0.20, 0.12), (60, 140, 240))
    faces += box_faces((-0.02, 0.0, 0.02), (0.10, 0.10, 0.10), (40, 38, 36))
    turns = np.linspace(0.0, 2.0 * math.pi, 20, endpoint=False)
    for ahead, side in ((0.08, 0.34), (0.08, -0.34), (-0.54, 0.34), (-0.54, -0.34)):
        hub, body = np.array([ahead, side, 0.17]), np.array([-0.22, 0.0, 0.12])
        along = hub - body
        wide = np.cross(along, (0.0, 0.0, 1.0)) / np.linalg.norm(along) * 0.03
        faces.append((np.array([body + wide, hub + wide, hub - wide, body - wide]), (70, 70, 74)))
        rotor = np.stack([0.21 * np.cos(turns), 0.21 * np.sin(turns), 0.02 + 0.0 * turns], axis=1)
        faces.append((hub + rotor, (200, 198, 190)))
        faces.append((hub + rotor * (0.25, 0.25, 1.5), (48, 46, 44)))
    return faces


def rover_faces() -> list[Face]:
    """Return the flat faces of a rover in its body frame, counter-clockwise from outside, and their BGR colours."""
    faces = []
    for middle, size, colour in (
        ((-0.02, 0.0, 0.24), (0.72, 0.40, 0.14), (60, 140, 240)),
        ((-0.06, 0.0, 0.33), (0.44, 0.32, 0.05), (70, 70, 74)),
        ((0.12, 0.0, 0.45), (0.05, 0.05, 0.22), (120, 120, 124)),
        ((0.14, 0.0, 0.60), (0.12, 0.18, 0.10), (235, 235, 235)),
        ((0.205, 0.0, 0.60), (0.02, 0.08, 0.07), (40, 30, 30)),
    ):
        faces += box_faces(middle, size, colour)
    turns = np.linspace(0.0, 2.0 * math.pi, 20, endpoint=False)
    for ahead in (-0.25, 0.23):
        for side in (-1.0, 1.0):
            rim = np.stack([ahead + 0.15 * np.cos(turns), 0 * turns, 0.15 + 0.15 * np.sin(turns)], axis=1)
            inner, outer = rim + side * INNER, rim + side * OUTER
            axle = np.array([ahead, 0.313 * side, 0.15])
            hub = axle + (rim - axle) * (0.45, 0.0, 0.45)
            for ring, colour in ((outer, (48, 46, 44)), (hub, (190, 190, 190))):
                faces.append((ring[::-1] if side > 0 else ring, colour))
            for index in range(len(turns)):
                after = (index + 1) % len(turns)
                quad = np.array([inner[index], outer[index], outer[after], inner[after]])
                faces.append((quad if side > 0 else quad[::-1], (40, 38, 36)))
    return faces


def simulator_values(name: str) -> dict[str, Any]:
    """Return the parameters of the simulator in a file."""
    import yaml

    text = (CONFIG / name).read_text(encoding="utf-8")
    return dict(yaml.safe_load(text)["/**/simulator_node"]["ros__parameters"])


def _vector(message: Any) -> Floats:
    return np.array([message.x, message.y, message.z])


def _rotation(q: Any) -> Floats:
    """Return the rotation matrix [3, 3] of a unit quaternion."""
    x, y, z, w = q.x, q.y, q.z, q.w
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
