# SPDX-License-Identifier: Apache-2.0
"""Pixels to directions and back, for every lens, region, binning and resolution; invalid input is refused."""

from __future__ import annotations

import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from harness.camera_fixtures import K, camera_info
from hypothesis import given, settings
from hypothesis import strategies as st

from dimp_ros.geometry.camera import Camera, NotCalibrated, same_shape
from dimp_ros.geometry.lens import make_lens

LENSES = {
    "none": ("", []),
    "barrel": ("plumb_bob", [-0.35, 0.15, 0.001, -0.002, -0.03]),
    "pincushion": ("plumb_bob", [0.2, 0.05, -0.003, 0.002, 0.0]),
    "rational": ("rational_polynomial", [0.5, -2.6, 1e-3, -3e-4, 1.5, 0.4, -2.4, 1.4]),
    "fisheye": ("equidistant", [-0.02, 0.005, -0.003, 0.0005]),
    "pure fisheye": ("equidistant", []),
}


def camera_with(lens: str) -> Camera:
    return Camera.from_matrix(640, 480, K, make_lens(*LENSES[lens]))


def grid() -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.linspace(0, 640, 23), np.linspace(0, 480, 17))
    return x, y


@pytest.mark.parametrize("lens", LENSES)
def test_every_pixel_is_recovered_from_its_direction(lens):
    camera = camera_with(lens)
    x, y = grid()
    rays = camera.bearing(x, y)
    assert rays.shape == (17, 23, 3)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1.0, atol=1e-12)
    np.testing.assert_allclose(camera.project(rays * 7.5), np.stack([x, y], -1), atol=1e-6)


@pytest.mark.parametrize("lens", LENSES)
def test_projection_is_that_of_opencv_but_for_half_a_pixel(lens):
    model, d = LENSES[lens]
    rng = np.random.default_rng(1)
    points = np.stack([rng.uniform(-1, 1, 200), rng.uniform(-0.8, 0.8, 200), rng.uniform(2, 9, 200)], -1)
    matrix, nowhere = np.array(K).reshape(3, 3), np.zeros(3)
    if model == "equidistant":
        coefficients = np.array(d or [0.0] * 4)
        seen = cv2.fisheye.projectPoints(points[:, None], nowhere, nowhere, matrix, coefficients)[0]
    else:
        seen = cv2.projectPoints(points, nowhere, nowhere, matrix, np.array(d or [0.0] * 5))[0]
    pixels = camera_with(lens).project(points)
    np.testing.assert_allclose(pixels - 0.5, seen[:, 0], atol=1e-9)
    back = camera_with(lens).bearing(*pixels.T)
    np.testing.assert_allclose(back, points / np.linalg.norm(points, axis=-1, keepdims=True), atol=1e-9)


SMALL = st.floats(-0.5, 0.5)
TANGENTIAL = st.floats(-0.01, 0.01)


@given(
    k=st.tuples(SMALL, SMALL, TANGENTIAL, TANGENTIAL, SMALL),
    share=st.floats(0.0, 0.9),
    turn=st.floats(0.0, 2 * math.pi),
)
def test_direction_within_the_lens_limit_comes_back(k, share, turn):
    camera = Camera.from_matrix(640, 480, K, make_lens("plumb_bob", k))
    angle = share * min(camera.lens.limit, 1.0)
    ray = [math.sin(angle) * math.cos(turn), math.sin(angle) * math.sin(turn), math.cos(angle)]
    pixel = camera.project(ray)
    np.testing.assert_allclose(camera.project(camera.bearing(*pixel)), pixel, atol=0.01)


def test_centre_of_an_ideal_image_is_straight_ahead():
    camera = Camera.from_matrix(640, 480, [500, 0, 319.5, 0, 500, 239.5, 0, 0, 1])
    assert camera.bearing(320.0, 240.0).tolist() == [0.0, 0.0, 1.0]
    left, right = camera.bearing(0.0, 240.0), camera.bearing(640.0, 240.0)
    assert left[0] == -right[0]
    # what a camera matrix calls (0, 0) is the centre of the first pixel, (0.5, 0.5) here
    assert camera.bearing(0.5, 240.0)[0] / camera.bearing(0.5, 240.0)[2] == pytest.approx((0 - 319.5) / 500)


def test_x_is_to_the_right_y_down_and_z_forward():
    camera = camera_with("barrel")
    right_and_down = camera.bearing(600.0, 400.0)
    assert (right_and_down > 0).all()


@pytest.mark.parametrize("lens", LENSES)
def test_beyond_the_lens_limit_the_direction_is_at_the_limit(lens):
    camera = camera_with(lens)
    rng = np.random.default_rng(2)
    x, y = rng.uniform(-1e7, 1e7, (2, 500))
    rays = camera.bearing(x, y)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1.0, atol=1e-9)
    angles = np.arccos(rays[:, 2])
    assert (angles <= camera.lens.limit + 1e-6).all()
    if lens in ("barrel", "rational", "fisheye"):  # of the others, even the farthest pixels are within
        np.testing.assert_allclose(angles, camera.lens.limit, atol=1e-3)
    outward = (rays[:, 0] * x >= -1e-6) & (rays[:, 1] * y >= -1e-6)
    assert outward.all()  # on the side on which the pixel is
    behind = camera.project(rng.normal(size=(500, 3)) * [1, 1, 0.1] - [0, 0, 3])
    assert np.isfinite(behind).all()


def test_lens_that_folds_the_image_back_is_cut_at_its_limit():
    camera = camera_with("barrel")
    axis = np.linspace(320, 2000, 300)
    angles = np.arccos(camera.bearing(axis, np.full_like(axis, 240))[:, 2])
    assert (np.diff(angles) > -1e-9).all()


@pytest.mark.parametrize("x", [math.nan, math.inf, 1e8])
def test_pixels_that_are_none_are_refused(x):
    with pytest.raises(ValueError, match="finite"):
        camera_with("none").bearing(x, 1.0)
    with pytest.raises(ValueError, match="finite"):
        camera_with("none").project([math.nan, 0.0, 1.0])
    with pytest.raises(ValueError, match="finite"):
        camera_with("none").project([0.0, 0.0, 0.0])


# CameraInfo


@pytest.mark.parametrize("lens", LENSES)
def test_binned_region_of_interest_matches_the_full_image(lens):
    model, d = LENSES[lens]
    full = Camera.from_info(camera_info(model=model, d=d))
    part = Camera.from_info(camera_info(model=model, d=d, roi=(100, 60, 400, 300), binning=(2, 4)))
    assert (part.width, part.height) == (200, 75)
    for x, y in ((0, 0), (31.5, 17.25), (200, 75)):
        np.testing.assert_allclose(part.bearing(x, y), full.bearing(100 + 2 * x, 60 + 4 * y), atol=1e-12)


def test_same_aspect_ratio_is_scaled_and_another_refused():
    camera = Camera.from_info(camera_info())
    for width, height in ((320, 240), (1280, 960), (213, 160), (640, 480)):
        other = camera.resized(width, height)
        np.testing.assert_allclose(
            other.bearing(width / 4, height / 3), camera.bearing(640 / 4, 480 / 3), atol=5e-3 / min(width, height)
        )
    for width, height in ((640, 360), (480, 640), (0, 0), (320, 238)):
        with pytest.raises(ValueError, match=f"{width} x {height}.*640 x 480"):
            camera.resized(width, height)


@given(width=st.integers(16, 4000), height=st.integers(16, 4000), divisor=st.integers(1, 16))
def test_an_image_shrunk_by_any_whole_number_has_the_same_shape(width, height, divisor):
    assert same_shape(width // divisor, height // divisor, width, height)
    assert same_shape(width, height, width // divisor, height // divisor)


def test_rectified_images_use_p_and_raw_ones_k_and_d():
    p = [700.0, 0, 300.0, -70.0, 0, 710.0, 200.0, 0, 0, 0, 1, 0]
    info = camera_info(model="plumb_bob", d=LENSES["barrel"][1], p=p)
    rectified = Camera.from_info(info, rectified=True)
    assert (rectified.fx, rectified.fy, rectified.cx, rectified.cy) == (700.0, 710.0, 300.5, 200.5)
    x, y, z = rectified.bearing(1000.5, 910.5)
    assert (x / z, y / z) == pytest.approx((1.0, 1.0))  # no distortion is left, a stereo baseline does not count
    raw = Camera.from_info(info)
    assert (raw.fx, raw.cx) == (K[0], K[2] + 0.5) and raw.lens.limit < rectified.lens.limit


def test_a_camera_that_is_not_calibrated_says_so_with_the_remedy():
    with pytest.raises(NotCalibrated, match="K is all zeros"):
        Camera.from_info(camera_info(k=[0.0] * 9))
    with pytest.raises(NotCalibrated, match="P is all zeros: set rectified to false"):
        Camera.from_info(camera_info(p=[0.0] * 12), rectified=True)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"size": (0, 0)}, "0 x 0"),
        ({"k": [math.nan] * 9}, "focal lengths nan"),
        ({"k": [-500.0, 0, 320, 0, 500, 240, 0, 0, 1]}, "focal lengths -500"),
        ({"k": [500.0, 0, 1e9, 0, 500, 240, 0, 0, 1]}, "principal point"),
        ({"k": [500.0, 6, 320, 0, 500, 240, 0, 0, 1]}, "skew of 6 px .* at most 5 px"),
        ({"k": [500.0, 0, 320, -1000, 500, 240, 0, 0, 1]}, "skew of 1000 px"),
        ({"k": [500.0, math.nan, 320, 0, 500, 240, 0, 0, 1]}, "skew of nan px"),
        ({"k": [500.0, 0, 320, 0, 500, 240, 0.001, 0, 1]}, r"last row \[0.001, 0.0, 1.0\]"),
        ({"k": [500.0, 0, 320, 0, 500, 240, 0, 0, 2]}, r"last row \[0.0, 0.0, 2.0\]"),
        ({"d": [math.inf, 0, 0, 0]}, r"must lie in"),
        ({"model": "plumb_bob", "d": [0.1] * 6}, "5 coefficients"),
        ({"model": "equidistant", "d": [0.1] * 5}, "4 coefficients"),
        ({"model": "omni", "d": [0.1]}, "'omni' is not known"),
        ({"model": "plumb_bob", "d": [-1e6, 0, 0, 0]}, "make no lens"),
        ({"roi": (600, 0, 100, 100)}, "region of interest"),
        ({"binning": (1000, 1)}, "binning"),
    ],
)
def test_invalid_camera_info_is_refused_with_its_values(fields, words):
    with pytest.raises(ValueError, match=words):
        Camera.from_info(camera_info(**fields))


ANY = st.floats(width=64)
PIXELS = ANY | st.floats(1, 1e4)
SKEW = ANY | st.floats(0, 0.01)
ZERO, ONE = st.just(0.0), st.just(1.0)
INFO = st.builds(
    SimpleNamespace,
    width=st.integers(0, 2**32 - 1),
    height=st.integers(0, 2**32 - 1),
    distortion_model=st.sampled_from(["", "plumb_bob", "rational_polynomial", "equidistant", "other"]),
    d=st.lists(ANY | SMALL, max_size=14),
    k=st.lists(ANY, min_size=9, max_size=9) | st.tuples(PIXELS, SKEW, PIXELS, SKEW, PIXELS, PIXELS, ZERO, ZERO, ONE),
    p=st.lists(ANY, min_size=12, max_size=12)
    | st.tuples(PIXELS, SKEW, PIXELS, ANY, SKEW, PIXELS, PIXELS, ANY, ZERO, ZERO, ONE, ZERO),
    binning_x=st.integers(0, 9),
    binning_y=st.integers(0, 9),
    roi=st.builds(
        SimpleNamespace, **{name: st.integers(0, 999) for name in ("x_offset", "y_offset", "width", "height")}
    ),
)


@settings(max_examples=300)
@given(info=INFO, rectified=st.booleans(), x=st.floats(-1e6, 1e6), y=st.floats(-1e6, 1e6))
def test_any_message_gives_a_unit_vector_or_a_refusal(info, rectified, x, y):
    try:
        camera = Camera.from_info(info, rectified=rectified)
    except ValueError:
        return
    assert np.linalg.norm(camera.bearing(x, y)) == pytest.approx(1.0)


@settings(max_examples=300)
@given(k=st.lists(st.floats(-1e3, 1e3), max_size=8), x=st.floats(-1e4, 1e4), y=st.floats(-1e4, 1e4), fish=st.booleans())
def test_any_coefficients_give_a_unit_vector_or_a_refusal(k, x, y, fish):
    try:
        lens = make_lens("equidistant" if fish else "", k)
    except ValueError:
        return
    camera = Camera.from_matrix(640, 480, K, lens)
    ray = camera.bearing(x, y)
    assert np.linalg.norm(ray) == pytest.approx(1.0)
    assert np.isfinite(camera.project(ray)).all() and np.isfinite(camera.project(-ray)).all()
