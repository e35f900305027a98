# SPDX-License-Identifier: Apache-2.0
"""The simulated world: images agree with geometry, motion with commands."""

from __future__ import annotations

import math
import pathlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimp_ros.apps.simulator.config import PATHS, WorldConfig
from dimp_ros.apps.simulator.delay import DelayLine
from dimp_ros.apps.simulator.motion import Path
from dimp_ros.apps.simulator.vehicles import Vehicle
from dimp_ros.apps.simulator.world import World
from dimp_ros.geometry.box import Box
from dimp_ros.geometry.camera import Camera

SMALL = {"width": 160, "height": 120}
BARREL = (-0.25, 0.06, 0.001, -0.002, 0.0)


def coloured(picture: np.ndarray) -> np.ndarray:
    """Return where an image has the pure magenta that the tests paint targets with."""
    return (picture[..., 0] > 200) & (picture[..., 1] < 60) & (picture[..., 2] > 200)


@pytest.fixture
def magenta(tmp_path: pathlib.Path) -> str:
    """Return the path of an image that is magenta all over."""
    path = tmp_path / "magenta.png"
    cv2.imwrite(str(path), np.full((64, 64, 3), (255, 0, 255), np.uint8))
    return str(path)


def seen_box(world: World) -> Box:
    """Return the box round the magenta pixels."""
    rows, columns = np.nonzero(coloured(world.render()))
    return Box(columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)


def assert_boxes_agree(found: Box, expected: Box, tolerance: float) -> None:
    sides = [found.x, found.y, found.x + found.w, found.y + found.h]
    wanted = [expected.x, expected.y, expected.x + expected.w, expected.y + expected.h]
    assert np.allclose(sides, wanted, atol=tolerance)


@pytest.mark.parametrize("mode", ["vehicle", "arm"])
@pytest.mark.parametrize("distortion", [(0.0,) * 5, BARREL])
def test_target_is_drawn_where_the_ground_truth_is(mode, distortion, magenta):
    changes = {"distortion": distortion, "target_picture": magenta, "target_offset": (0.2, -0.15)}
    world = World(WorldConfig.arm(**changes) if mode == "arm" else WorldConfig(**changes))
    for twist in ((0.4, 0.1, -0.05, 0, 0, -0.1), (-0.3, 0.1, 0.1, 0.3, -0.2, 0.4)):
        scale = 0.1 if mode == "arm" else 1.0
        for _ in range(10):
            world.command([scale * value for value in twist])
            world.step(0.05)
        box = world.truth().box
        assert box is not None and world.truth().visible == 1.0
        assert_boxes_agree(seen_box(world), box, 1.0)


def test_the_box_agrees_with_the_position_and_the_camera(magenta):
    world = World(WorldConfig(target_offset=(0.0, 0.0), target_width=0.9, target_height=1.1, target_picture=magenta))
    truth, focal = world.truth(), world.camera.fx
    assert truth.position == pytest.approx((0.0, 0.0, 6.0))
    assert truth.box == pytest.approx(
        (320 - focal * 0.45 / 6, 240 - focal * 0.55 / 6, focal * 0.9 / 6, focal * 1.1 / 6), abs=0.3
    )
    assert focal == pytest.approx(320 / math.tan(math.radians(30)))


def test_the_target_starts_at_the_offset_asked_for():
    for config in (
        WorldConfig(target_offset=(0.25, -0.125), target_width=0.9),
        WorldConfig.arm(target_offset=(0.25, -0.125)),
    ):
        box = World(config).truth().box
        assert box is not None
        assert box.center == pytest.approx((320 + 160, 240 - 60), abs=1.5)  # a tilted plate is not quite symmetric


def test_depths_are_those_of_target_board_ground_and_walls():
    world = World(WorldConfig(**SMALL, target_offset=(0.0, 0.0), hide_from=0.1, hide_until=9.0, scene_size=25.0))
    depth = world.depth()
    world.step(0.2)
    assert depth.dtype == np.float32 and depth.shape == (120, 160)
    assert world.depth()[60, 80] == pytest.approx(0.75 * 6.0, abs=1e-3)
    assert depth[5, 5] == pytest.approx(25.0, abs=1e-3)
    row = 110
    down = (row + 0.5 - world.camera.cy) / world.camera.fy
    assert depth[row, 10] == pytest.approx(1.5 / down, rel=1e-4)
    assert World(WorldConfig(**SMALL)).depth()[60, 80] == pytest.approx(6.0, abs=1e-3)


def test_the_camera_info_describes_the_camera():
    world = World(WorldConfig(distortion=BARREL))
    info = world.camera_info()
    camera = Camera.from_info(info)
    assert camera == world.camera or np.allclose(camera.bearing(10.0, 400.0), world.camera.bearing(10.0, 400.0))
    assert info.distortion_model == "plumb_bob" and tuple(info.d) == BARREL
    assert camera.bearing(320.0, 240.0) == pytest.approx((0.0, 0.0, 1.0), abs=1e-6)


def test_a_vehicle_moves_in_its_own_frame_with_a_lag():
    world = World(WorldConfig(lag=0.3, command_timeout=10.0))
    world.command((1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    world.step(0.3)
    assert world.truth().velocity[0] == pytest.approx(1.0 - math.exp(-1.0), abs=1e-9)
    world.step(2.7)
    moved = 3.0 - 0.3 * (1.0 - math.exp(-10.0))
    assert world.truth().camera_position == pytest.approx((moved, 0.0, 1.5), abs=1e-3)


def test_tilted_camera_looks_down_and_still_flies_level():
    world = World(WorldConfig(camera_pitch=30.0, lag=0.0, **SMALL))
    assert world.truth().camera_rotation[:, 2] == pytest.approx([math.cos(math.pi / 6), 0.0, -0.5])
    world.command((1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    world.step(0.4)
    assert world.truth().camera_position == pytest.approx([0.4, 0.0, world.config.camera_height])
    world.command((0.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    world.step(0.4)
    ahead = world.truth().camera_rotation[:, 2]
    assert math.atan2(ahead[1], ahead[0]) == pytest.approx(0.4) and ahead[2] == pytest.approx(-0.5)


def test_vehicle_turns_left_and_drives_where_it_looks():
    world = World(WorldConfig(lag=0.0, command_timeout=10.0))
    world.command((0.0, 0.0, 0.0, 0.0, 0.0, math.pi / 20))
    world.step(1.0)
    truth = world.truth()
    assert truth.box is not None and truth.box.center[0] > 320 + 50
    world.step(9.0)
    world.command((1.0, 0.0, 0.5, 0.0, 0.0, 0.0))
    world.step(2.0)
    assert world.truth().camera_position == pytest.approx((0.0, 2.0, 2.5), abs=0.01)


def test_an_arm_moves_in_the_optical_frame():
    world = World(WorldConfig.arm(lag=0.0, command_timeout=10.0))
    world.command((0.02, 0.01, 0.1, 0.0, 0.0, 0.0))
    world.step(1.0)
    truth = world.truth()
    assert truth.position == pytest.approx((-0.02, -0.01, 0.4), abs=1e-9)
    assert truth.camera_position == pytest.approx((-0.01, -0.02, 0.4), abs=1e-9)  # x is the camera's up, y its left


@given(turn=st.tuples(*[st.floats(-1.0, 1.0)] * 3), seconds=st.floats(0.05, 1.0))
@settings(max_examples=25, deadline=None)
def test_arm_that_only_turns_stays_in_place(turn, seconds):
    carrier = Vehicle(WorldConfig.arm(lag=0.0, command_timeout=10.0))
    position, rotation = carrier.position, carrier.rotation
    carrier.command(0.0, (0.0, 0.0, 0.0, *turn))
    carrier.advance(0.0, seconds)
    assert carrier.position == pytest.approx(position)
    turned, _ = cv2.Rodrigues(rotation.T @ carrier.rotation)
    assert turned.ravel() == pytest.approx(np.array(turn) * seconds, abs=1e-6)


def test_without_further_commands_the_camera_stops():
    world = World(WorldConfig(lag=0.1, command_timeout=0.5))
    world.command((1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    world.step(0.45)
    assert world.truth().velocity[0] > 0.9
    world.step(1.5)
    assert abs(world.truth().velocity).max() < 1e-6


def test_a_command_acts_after_its_latency():
    world = World(WorldConfig(lag=0.0, command_latency=0.2))
    world.command((1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    world.step(0.19)
    assert not world.truth().velocity.any()
    world.step(0.02)
    assert world.truth().velocity[0] == 1.0
    world.step(0.48)
    assert world.truth().velocity[0] == 1.0
    world.step(0.05)
    assert not world.truth().velocity.any()


@pytest.mark.parametrize("twist", [(math.nan, 0, 0, 0, 0, 0), (0, 0, 0), (0, 0, 0, 0, 0, math.inf)])
def test_invalid_velocity_is_refused_and_changes_nothing(twist):
    world = World(WorldConfig(lag=0.0, **SMALL))
    world.command((1.0, 0, 0, 0, 0, 0))
    with pytest.raises(ValueError, match="six finite numbers"):
        world.command(twist)
    world.step(0.1)
    assert world.truth().velocity[0] == 1.0


def test_commands_are_held_to_the_limits():
    world = World(WorldConfig(lag=0.0, max_speed=1.0, max_turn=0.5, **SMALL))
    world.command((9.0, -9.0, 0.3, 7.0, 7.0, 7.0))
    world.step(0.1)
    assert world.truth().velocity == pytest.approx((1.0, -1.0, 0.3, 0.0, 0.0, 0.5))


@pytest.mark.parametrize("path", PATHS)
def test_path_keeps_its_set_speed(path):
    config = WorldConfig(path=path, speed=0.25, target_offset=(0.0, 0.0), field_of_view=60.0)
    step, focal = 0.05, config.width / 2 / math.tan(math.radians(30.0))
    places = np.array([Path(config, np.random.default_rng(3)).at(step * index) for index in range(1200)])
    assert places[0] == pytest.approx((0.0, 0.0, 6.0))
    moved = np.linalg.norm(np.diff(places[:, :2], axis=0), axis=1) / 6.0 / step * focal / config.width
    if path == "static":
        assert moved.max() == 0.0
    elif path == "circle":
        angles = np.unwrap(np.arctan2(places[:, 0], places[:, 2]))
        assert np.diff(angles) / step == pytest.approx(0.25 * config.width / focal)
    else:
        assert 0.25 * 0.6 <= moved.max() <= 0.25 * 1.001


def test_camera_moves_while_the_scenario_is_paused():
    world = World(WorldConfig(path="sine", **SMALL))
    world.playing = False
    world.command((1.0, 0, 0, 0, 0, 0))
    world.step(0.4)
    truth = world.truth()
    assert truth.scenario == 0.0 and truth.time == 0.4 and truth.camera_position[0] > 0.0
    assert truth.target == pytest.approx(World(WorldConfig(path="sine")).truth().target)
    world.playing = True
    world.step(1.0)
    assert world.truth().target[1] != truth.target[1]


def test_board_hides_the_target_and_is_gone_after(magenta):
    config = WorldConfig(target_picture=magenta, path="sine", hide_from=1.0, hide_until=2.0, target_offset=(0.1, 0.0))
    world = World(config)
    visible = {}
    for tick in range(60):
        truth = world.truth()
        shown = coloured(world.render()).sum() if tick % 3 == 0 else None
        if shown is not None and truth.box is not None:
            assert shown / (truth.box.area * math.pi / 4) == pytest.approx(truth.visible, abs=0.06)
        visible[tick] = truth.visible
        world.step(0.05)
    assert all(visible[tick] == 0.0 for tick in range(20, 41))
    assert all(visible[tick] == 1.0 for tick in (*range(0, 12), *range(48, 60)))


@pytest.mark.parametrize(("height", "pitch"), [(0.6, 0.0), (2.4, 18.0)], ids=["rover", "drone"])
def test_fence_stands_still_and_hides_what_is_behind_it(magenta, height, pitch):
    config = WorldConfig(
        target_picture=magenta, path="sine", period=8.0, hide_by="fence", hide_from=5.5, hide_until=6.5, on_ground=True,
        camera_height=height, camera_pitch=pitch, target_offset=(0.28, 0.0),
    )  # fmt: skip
    world = World(config)
    visible = []
    for _ in range(81):
        truth = world.truth()
        assert truth.box is not None and truth.target[2] == pytest.approx(config.target_height / 2)
        visible.append(truth.visible)
        if len(visible) % 10 == 1:
            inside = np.clip((truth.box.x, truth.box.x + truth.box.w), 0, 640)
            whole = math.pi / 4 * truth.box.area
            if np.ptp(inside) == truth.box.w:
                assert coloured(world.render()).sum() / whole == pytest.approx(truth.visible, abs=0.06)
        world.step(0.1)
    assert visible[60] == 0.0 and visible[0] == 1.0
    assert {value for value in visible if 0.0 < value < 1.0}


def test_drawn_target_faces_the_way_that_it_goes_and_strides():
    world = World(WorldConfig(path="sine", period=8.0, target_offset=(0.0, 0.0), target_distance=3.0))
    images = []
    for time in (0.1, 0.4, 3.9):  # through the middle to the right twice, then back to the left
        world.step(time - world.scenario)
        box = world.truth().box
        assert box is not None
        picture = world.render()[int(box.y) : int(box.y + box.h), int(box.x) : int(box.x + box.w)]
        images.append(cv2.resize(picture, (120, 90)).astype(float))
    first, stride, _ = images
    assert np.abs(first - stride).mean() > 1.0, "another image of the stride"
    red = [(image[..., 2] > image[..., 1] + 25) for image in images]
    head = [mask[:30].nonzero()[1].mean() / 120 for mask in red]  # of the upper third
    assert head[0] > 0.6 and head[1] > 0.6 and head[2] < 0.4


def test_a_target_that_vanishes_has_no_box_and_is_not_drawn(magenta):
    world = World(WorldConfig(target_picture=magenta, hide_by="vanish", hide_from=0.5, hide_until=1.0, **SMALL))
    assert coloured(world.render()).any()
    world.step(0.6)
    assert world.truth().box is None and world.truth().visible == 0.0 and not coloured(world.render()).any()
    world.step(0.5)
    assert world.truth().visible == 1.0 and coloured(world.render()).any()


def test_target_behind_the_camera_or_outside_is_not_visible():
    world = World(WorldConfig(lag=0.0, command_timeout=10.0, **SMALL))
    world.command((0, 0, 0, 0, 0, 1.0))
    world.step(math.radians(33))
    assert 0.0 < world.truth().visible < 1.0
    world.step(math.radians(147))
    assert world.truth().box is None and world.truth().visible == 0.0
    assert world.render().shape == (120, 160, 3)


def test_same_seed_gives_the_same_world():
    config = WorldConfig(path="random", **SMALL)
    worlds = [World(config, seed) for seed in (1, 1, 2)]
    for world in worlds:
        world.command((0.3, 0, 0, 0, 0, 0.2))
        world.step(0.7)
    pictures = [world.render() for world in worlds]
    assert np.array_equal(pictures[0], pictures[1]) and not np.array_equal(pictures[0], pictures[2])
    assert worlds[0].truth().box == worlds[1].truth().box != worlds[2].truth().box


@given(
    twist=st.tuples(*[st.floats(-2.0, 2.0)] * 6),
    arm=st.booleans(),
    path=st.sampled_from([path for path in PATHS if path != "circle"]),
)
@settings(max_examples=20, deadline=None)
def test_any_camera_pose_gives_an_image_and_finite_truth(twist, arm, path):
    make = WorldConfig.arm if arm else WorldConfig
    world = World(make(**SMALL, path=path, hide_from=0.5, hide_until=0.8, command_timeout=10.0))
    world.command(twist)
    for _ in range(4):
        world.step(0.5)
        picture, depth, truth = world.render(), world.depth(), world.truth()
        assert picture.shape == (120, 160, 3) and picture.dtype == np.uint8
        assert not (depth <= 0.0).any() and 0.0 <= truth.visible <= 1.0
        assert truth.box is None or np.isfinite(truth.box).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": "boat"}, "mode"),
        ({"width": 10}, "width"),
        ({"lag": math.nan}, "lag"),
        ({"target_offset": (0.1,)}, "target_offset"),
        ({"target_offset": (0.1, 0.9)}, "target_offset"),
        ({"mode": "arm", "path": "circle"}, "circle"),
        ({"distortion": (0.0,) * 6}, "distortion"),
        ({"speed": -1.0}, "speed"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(changes, words):
    with pytest.raises(ValueError, match=words):
        WorldConfig(**changes)


def test_missing_image_file_is_refused_with_its_name():
    with pytest.raises(ValueError, match=r"no/such\.png"):
        World(WorldConfig(wall_picture="no/such.png", **SMALL))


def test_delay_line_returns_items_after_its_delay():
    line: DelayLine[str] = DelayLine(0.1)
    line.push(0.0, "a")
    line.push(0.05, "b")
    line.push(0.2, "c")
    assert line.pop(0.09) is None
    assert line.pop(0.16) == "b" and line.pop(0.16) is None
    assert line.pop_all(0.31) == ["c"] and line.pop_all(9.0) == []
    with pytest.raises(ValueError, match="delay"):
        DelayLine(-1.0)
