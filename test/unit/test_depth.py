# SPDX-License-Identifier: Apache-2.0
"""Targets of known size and position are located, from depth or from their width, also behind occluders."""

from __future__ import annotations

import array
import time
from types import SimpleNamespace

import numpy as np
import pytest
from harness.camera_fixtures import K, camera_info, depth_image, header, scene
from hypothesis import given, settings
from hypothesis import strategies as st

from dimp_ros.geometry.box import Box
from dimp_ros.geometry.camera import Camera
from dimp_ros.geometry.lens import make_lens
from dimp_ros.geometry.ranging import foreground, position, range_from_depth, range_from_width
from dimp_ros.images.conversion import BadImage
from dimp_ros.node.position.depth_buffer import DepthBuffer, depths_inside
from dimp_ros.node.position.estimator import PositionEstimator

PLACE, SIZE = (0.5, -0.3, 3.0), (0.4, 0.8)
CAMERA = Camera.from_matrix(640, 480, K)
DEPTH, BOX = scene(CAMERA, PLACE, SIZE)


def positioner(info: SimpleNamespace | None = None, **settings: object) -> PositionEstimator:
    made = PositionEstimator(**settings)
    made.on_camera_info(info or camera_info())
    return made


def place_of(found: object) -> np.ndarray:
    assert found is not None
    return np.array([found.x, found.y, found.z])


# From depth images


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 6, 7])
def test_position_holds_for_encodings_byte_orders_and_padding(encoding, big, padding):
    where = positioner()
    where.on_depth(depth_image(DEPTH, encoding, big, padding))
    found = where.position(header(), 640, 480, BOX)
    np.testing.assert_allclose(place_of(found), PLACE, atol=0.002)
    assert not found.approximate and found.range.source == "depth" and not where.complaint


@settings(max_examples=25, deadline=None)
@given(
    x=st.floats(-1.0, 1.0), y=st.floats(-0.7, 0.7), z=st.floats(2.0, 7.0), w=st.floats(0.1, 1.0), h=st.floats(0.1, 1.0)
)
def test_position_error_is_within_three_deviations(x, y, z, w, h):
    camera = Camera.from_matrix(320, 240, [300.0, 0, 160, 0, 300, 120, 0, 0, 1])
    depth, box = scene(camera, (x, y, z), (w, h))
    seen = foreground(depths_inside(depth_image(depth), Box(*box), 320, 240))
    found = position(camera, Box(*box), range_from_depth(camera, Box(*box), seen))
    # a box that leaves the image still has its middle where the target's is
    np.testing.assert_allclose(place_of(found), (x, y, z), rtol=0.002, atol=0.002)
    error = place_of(found) - (x, y, z)
    assert error @ np.linalg.solve(found.covariance, error) < 9.0


def test_depth_is_along_the_axis_and_the_range_along_the_ray():
    place = (2.0, 1.0, 4.0)
    depth, box = scene(Camera.from_matrix(640, 480, [300.0, 0, 320, 0, 300, 240, 0, 0, 1]), place, SIZE)
    where = positioner(camera_info(k=[300.0, 0, 320, 0, 300, 240, 0, 0, 1]))
    where.on_depth(depth_image(depth))
    found = where.position(header(), 640, 480, box)
    assert found.range.distance == pytest.approx(np.linalg.norm(place), abs=0.01)
    assert found.z == pytest.approx(4.0, abs=0.01)


@pytest.mark.parametrize(
    ("model", "d"),
    [("plumb_bob", [-0.3, 0.1, 0.001, -0.001, 0.0]), ("equidistant", [-0.02, 0.005, -0.003, 0.0005])],
)
def test_position_through_a_distorting_lens(model, d):
    place = (1.1, -0.7, 3.0)
    depth, box = scene(Camera.from_matrix(640, 480, K, make_lens(model, d)), place, SIZE)
    where = positioner(camera_info(model=model, d=d))
    where.on_depth(depth_image(depth))
    np.testing.assert_allclose(place_of(where.position(header(), 640, 480, box)), place, atol=0.02)


@pytest.mark.parametrize("divisor", [2, 4])
def test_depth_of_another_resolution_serves_as_well(divisor):
    where = positioner()
    where.on_depth(depth_image(DEPTH[divisor // 2 :: divisor, divisor // 2 :: divisor]))
    np.testing.assert_allclose(place_of(where.position(header(), 640, 480, BOX)), PLACE, atol=0.002)


def test_position_in_a_binned_region_of_interest():
    where = positioner(camera_info(roi=(200, 40, 400, 400), binning=(2, 2)))
    where.on_depth(depth_image(DEPTH[40:440:2, 200:600:2]))
    box = ((BOX[0] - 200) / 2, (BOX[1] - 40) / 2, BOX[2] / 2, BOX[3] / 2)
    np.testing.assert_allclose(place_of(where.position(header(), 200, 200, box)), PLACE, atol=0.002)


@pytest.mark.parametrize("hole", [0.0, np.nan, np.inf, -np.inf, -1.0])
def test_holes_in_the_depth_do_not_count(hole):
    depth = DEPTH.copy()
    depth[np.random.default_rng(0).random(depth.shape) < 0.9] = hole
    where = positioner()
    where.on_depth(depth_image(depth, "32FC1"))
    np.testing.assert_allclose(place_of(where.position(header(), 640, 480, BOX)), PLACE, atol=0.002)


def test_the_largest_number_of_a_depth_in_millimetres_is_a_hole():
    depth = np.full((480, 640), 65.535)
    assert not depths_inside(depth_image(depth), Box(*BOX), 640, 480).any()
    assert depths_inside(depth_image(depth - 0.001), Box(*BOX), 640, 480).all()


def test_mostly_holes_give_no_position_and_a_reason():
    depth = np.zeros_like(DEPTH)
    depth[::10, ::10] = 3.0
    where = positioner()
    where.on_depth(depth_image(depth))
    assert where.position(header(), 640, 480, BOX) is None
    assert "no surface" in where.complaint
    assert where.bearing(header(), 640, 480, BOX) is not None
    where.on_depth(depth_image(DEPTH, stamp=10.01))
    assert where.position(header(10.01), 640, 480, BOX) is not None
    assert not where.complaint


@given(share=st.floats(0.2, 1.0), target=st.floats(0.5, 5.0), gap=st.floats(0.4, 30.0), seed=st.integers(0, 99))
def test_depth_of_a_thin_target_ignores_wall_and_outliers(share, target, gap, seed):
    rng = np.random.default_rng(seed)
    depths = np.where(rng.permutation(1000) < share * 1000, target, target * 1.15 + gap)
    depths *= rng.normal(1.0, 0.01, 1000).clip(0.97, 1.03)
    depths[rng.integers(0, 1000, 50)] = rng.uniform(0.1, target, 50)
    found = foreground(depths)
    assert found.depth == pytest.approx(target, rel=0.03)
    assert found.valid == 1000 and found.pixels <= share * 1000 + 50
    assert 0.01 * target <= found.deviation < 0.03 * target


def test_rough_surface_has_a_larger_deviation():
    rough = np.random.default_rng(0).normal(5.0, 0.12, 2000)
    assert foreground(rough).deviation == pytest.approx(0.12, rel=0.25)
    assert foreground(np.full(2000, 5.0)).deviation == pytest.approx(0.05)


def test_depths_all_over_the_place_are_no_surface():
    assert foreground(np.geomspace(0.1, 100.0, 20)) is None
    assert foreground(np.array([])) is None and foreground(np.full(100, np.nan)) is None


def test_a_box_outside_of_the_image_has_no_depths():
    for box in (Box(-50, 10, 40, 40), Box(640, 10, 40, 40), Box(10, 900, 40, 40)):
        assert depths_inside(depth_image(DEPTH), box, 640, 480).size == 0


def test_only_the_middle_of_the_box_is_sampled():
    depth = np.full((480, 640), np.nan)
    depth[100:200, 100:200] = 2.0
    assert np.isfinite(depths_inside(depth_image(depth, "32FC1"), Box(60, 60, 180, 180), 640, 480)).all()
    assert depths_inside(depth_image(DEPTH), Box(0, 0, 640, 480), 640, 480).size <= 48**2


# Which depth image


def test_depth_image_nearest_in_time_is_used():
    where = positioner(depth_tolerance=0.05)
    for stamp, z in ((9.90, 1.0), (10.03, 3.0), (10.10, 6.0)):
        where.on_depth(depth_image(np.full((480, 640), z), stamp=stamp))
    assert where.position(header(10.0), 640, 480, BOX).z == pytest.approx(3.0)
    assert where.position(header(10.08), 640, 480, BOX).z == pytest.approx(6.0)
    assert where.position(header(10.2), 640, 480, BOX) is None
    assert "0.1 s older" in where.complaint and "depth_tolerance" in where.complaint


def test_complaint_about_long_frame_ids_is_bounded():
    where = positioner(camera_info(frame_id="x" * 70_000))
    where.bearing(header(), 640, 480, BOX)
    assert "camera_info has frame_id" in where.complaint and len(where.complaint) <= 1000


def test_last_depth_image_of_one_stamp_is_used():
    where = positioner()
    where.on_depth(depth_image(DEPTH, encoding="32FC1"))
    bad = depth_image(DEPTH)
    bad.data = bad.data[:100]
    where.on_depth(bad)
    assert where.position(header(), 640, 480, BOX) is None and "100 bytes" in where.complaint
    where.on_depth(depth_image(DEPTH))
    np.testing.assert_allclose(place_of(where.position(header(), 640, 480, BOX)), PLACE, atol=0.002)
    assert not where.complaint


def test_depth_of_another_frame_is_not_taken_for_aligned():
    where = positioner()
    where.on_depth(depth_image(DEPTH, frame_id="depth_lens"))
    assert where.position(header(), 640, 480, BOX) is None
    assert "'depth_lens'" in where.complaint and "aligned" in where.complaint


def test_held_depth_images_are_bounded_but_keep_the_newest():
    image = depth_image(np.ones((10, 10)))
    held = DepthBuffer(max_bytes=len(image.data) * 3, max_images=100)
    for _ in range(10):
        held.add(image)
    assert len(held) == 3
    held.add(depth_image(np.ones((100, 100)), stamp=11.0))
    assert len(held) == 1 and held.nearest(header(11.0).stamp)[1] == 0.0
    few = DepthBuffer(max_bytes=2**30, max_images=4)
    for _ in range(10):
        few.add(image)
    assert len(few) == 4
    few.clear()
    assert few.nearest(header().stamp) is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"encoding": "rgb8"}, "'rgb8'"),
        ({"width": 0}, "0 x 480"),
        ({"step": 100}, "step 100"),
        ({"data": array.array("B", bytes(100))}, "100 bytes"),
        ({"height": 2**31}, "614400 bytes"),
        ({"width": 320, "height": 480}, "another shape"),
    ],
)
def test_contradictory_depth_message_is_refused_and_reported(fields, words):
    image = SimpleNamespace(**{**vars(depth_image(DEPTH)), **fields})
    with pytest.raises(BadImage, match=words):
        depths_inside(image, Box(*BOX), 640, 480)
    where = positioner()
    where.on_depth(image)
    assert where.position(header(), 640, 480, BOX) is None
    assert words in where.complaint


# From the target's width


@pytest.mark.parametrize("place", [(0.0, 0.0, 3.0), (0.8, 0.4, 4.0), (-0.5, -0.5, 2.0)])
def test_range_from_the_width_is_marked_approximate(place):
    box = scene(CAMERA, place, SIZE)[1]
    found = positioner(target_width=SIZE[0]).position(header(), 640, 480, box)
    np.testing.assert_allclose(place_of(found), place, rtol=0.05, atol=0.02)
    assert found.approximate
    measured = position(CAMERA, Box(*box), range_from_depth(CAMERA, Box(*box), foreground(np.full(9, place[2]))))
    ray = np.array(place) / np.linalg.norm(place)
    assert ray @ found.covariance @ ray > 20 * (ray @ measured.covariance @ ray)


def test_target_at_the_border_has_no_range_from_its_width():
    for x in (-20.0, 0.0, 2.0, 540.0, 600.0):
        assert range_from_width(CAMERA, Box(x, 100, 98, 200), 0.4) is None
    assert range_from_width(CAMERA, Box(100, -50, 98, 200), 0.4) is not None


def test_depth_is_preferred_to_the_width():
    where = positioner(target_width=0.5)  # it is 0.4
    assert where.position(header(), 640, 480, BOX).z == pytest.approx(3.0 * 5 / 4, rel=0.02)
    where.on_depth(depth_image(DEPTH))
    assert where.position(header(), 640, 480, BOX).z == pytest.approx(3.0)
    assert where.position(header(11.0), 640, 480, BOX).approximate
    assert "1 s older" in where.complaint


def test_no_depth_and_no_width_give_no_position_silently():
    where = positioner()
    assert where.position(header(), 640, 480, BOX) is None
    assert where.bearing(header(), 640, 480, BOX) is not None
    assert not where.complaint


# Covariance


def test_uncertainty_is_largest_along_the_ray():
    def axes(place):
        box = Box(*scene(CAMERA, place, SIZE)[1])
        found = position(CAMERA, box, range_from_width(CAMERA, box, SIZE[0]))
        values, vectors = np.linalg.eigh(found.covariance)
        return values, vectors[:, 2] @ place_of(found) / np.linalg.norm(place_of(found))

    near, along = axes((0.4, 0.2, 2.0))
    far, _ = axes((0.8, 0.4, 4.0))
    assert abs(along) == pytest.approx(1.0, abs=1e-3)
    assert near[0] > 0 and near[2] > 10 * near[1]
    assert far[2] == pytest.approx(4 * near[2], rel=0.1)  # relative to the range, the same
    for values in (near, far):  # 5 % of the target's sides
        assert np.sqrt(values[:2]) == pytest.approx(0.05 * np.array(SIZE), rel=0.15)


# Camera info as it comes in


def test_bearing_follows_camera_info_and_image_size():
    where = PositionEstimator()
    assert where.bearing(header(), 640, 480, BOX) is None and not where.complaint
    where.on_camera_info(camera_info())
    full = where.bearing(header(), 640, 480, BOX)
    assert full == pytest.approx(np.array(PLACE) / np.linalg.norm(PLACE), abs=1e-3)
    half = where.bearing(header(), 320, 240, np.array(BOX) / 2)
    assert half == pytest.approx(full)
    assert where.bearing(header(), 640, 360, BOX) is None and "640 x 360" in where.complaint
    assert where.bearing(header(), 640, 480, BOX) == full and not where.complaint
    where.on_camera_info(camera_info(k=[300.0, 0, 322, 0, 305, 236, 0, 0, 1]))
    assert where.bearing(header(), 640, 480, BOX)[0] > full[0]


def test_uncalibrated_camera_has_no_bearing_and_a_complaint():
    where = positioner(camera_info(k=[0.0] * 9))
    assert where.bearing(header(), 640, 480, BOX) is None
    assert "not calibrated" in where.complaint or "calibrate the camera" in where.complaint
    where.on_camera_info(camera_info())
    assert where.bearing(header(), 640, 480, BOX) is not None and not where.complaint


def test_a_broken_camera_info_ends_bearings_at_once():
    where = positioner()
    where.on_camera_info(camera_info(k=[np.nan] * 9))
    assert where.bearing(header(), 640, 480, BOX) is None and "focal length" in where.complaint


def test_camera_info_of_another_frame_id_is_reported_and_used():
    where = positioner(camera_info(frame_id="other"))
    assert where.bearing(header(), 640, 480, BOX) is not None
    assert "'other'" in where.complaint and "'lens'" in where.complaint


def test_depth_without_camera_info_is_reported():
    where = PositionEstimator()
    where.on_depth(depth_image(DEPTH))
    assert where.position(header(), 640, 480, BOX) is None
    assert "no camera_info" in where.complaint


def test_clear_forgets_everything():
    where = positioner(target_width=1.0)
    where.on_depth(object())
    assert where.complaint
    where.clear()
    assert not where.complaint and where.bearing(header(), 640, 480, BOX) is None


ANYTHING = st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.floats(), max_size=14)
FIELDS = st.dictionaries(
    st.sampled_from(["width", "height", "encoding", "step", "data", "is_bigendian", "d", "k", "p", "roi", "header"]),
    ANYTHING,
    max_size=4,
)


@settings(max_examples=200, deadline=None)
@given(info=FIELDS, depth=FIELDS, box=st.lists(st.floats(), max_size=5), size=st.tuples(st.integers(), st.integers()))
def test_no_input_raises_or_yields_nan(info, depth, box, size):
    where = PositionEstimator(target_width=0.5)
    where.on_camera_info(SimpleNamespace(**{**vars(camera_info()), **info}))
    where.on_depth(SimpleNamespace(**{**vars(depth_image(DEPTH[::20, ::20])), **depth}))
    for width, height, rectangle in ((640, 480, BOX), (640, 480, box), (*size, BOX)):
        bearing = where.bearing(header(), width, height, rectangle)
        assert bearing is None or np.linalg.norm(bearing) == pytest.approx(1.0)
        found = where.position(header(), width, height, rectangle)
        assert found is None or (np.isfinite(place_of(found)).all() and np.isfinite(found.covariance).all())
    assert isinstance(where.complaint, str)


def test_invalid_box_has_no_bearing_and_is_reported():
    where = positioner()
    assert where.bearing(header(), 640, 480, (np.nan, 0, 10, 10)) is None
    assert "finite" in where.complaint
    assert where.bearing(header(), 640, 480, BOX) is not None and not where.complaint


def test_a_bearing_costs_far_less_than_the_tracker():
    where = positioner(camera_info(model="plumb_bob", d=[-0.3, 0.1, 0.001, -0.001, 0.0]))
    head = header()
    durations = []
    for _ in range(200):
        begin = time.perf_counter()
        where.bearing(head, 640, 480, BOX)
        durations.append(time.perf_counter() - begin)
    assert min(durations) < 2e-3  # 0.1 to 0.2 ms on one core of 2026; the margin is for busy machines
