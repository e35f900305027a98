# SPDX-License-Identifier: Apache-2.0
"""Camera information, depth images, and boxes to be located."""

from __future__ import annotations

import array
import math
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
from harness.camera_fixtures import K, camera_info, depth_image, header

from dimp_ros.node.position.estimator import PositionEstimator
from fuzz.draw import odd_float, odd_int, odd_text, odd_thing, some
from fuzz.run import Attempt

WIDTH, HEIGHT = 640, 480
BOX = (300.0, 200.0, 60.0, 80.0)
LENSES: tuple[tuple[str, list[float]], ...] = (
    ("", []),
    ("plumb_bob", [-0.35, 0.15, 0.001, -0.002, -0.03]),
    ("rational_polynomial", [0.5, -2.6, 1e-3, -3e-4, 1.5, 0.4, -2.4, 1.4]),
    ("equidistant", [-0.02, 0.005, -0.003, 0.0005]),
)
_ENCODINGS = ("16UC1", "32FC1", "mono16", "bgr8", "", "16uc1")


@contextmanager
def positions() -> Iterator[Attempt]:
    """Give camera information and depth to an estimator that has valid ones, and ask it for positions."""
    good = camera_info(), depth_image(np.full((48, 64), 3.0))
    yield lambda draw: _attempt(draw, *good)


def _attempt(draw: Random, good_info: SimpleNamespace, good_depth: SimpleNamespace) -> bool:
    """Send both kinds in any order; afterwards valid ones must be used again.

    :return: whether there was a position from the drawn ones.
    """
    where = PositionEstimator(
        rectified=draw.random() < 0.3,
        target_width=draw.choice((0.0, 0.5)),
        depth_tolerance=draw.choice((0.05, 10.0)),
        max_depth_bytes=draw.choice((1, 2**20)),
    )
    where.on_camera_info(good_info)
    where.on_depth(good_depth)
    case = draw.randrange(4)
    if case != 1:
        where.on_camera_info(drawn_info(draw))
    if case != 2:
        where.on_depth(drawn_depth(draw))
    found = _ask(where, header(), WIDTH, HEIGHT, BOX)
    if case == 3:  # an unexpected box as well
        box = [odd_float(draw) if draw.random() < 0.4 else value for value in BOX]
        size = [draw.choice((WIDTH, HEIGHT, odd_int(draw, 0, 2**32 - 1))) for _ in range(2)]
        _ask(where, _header(draw), *size, box)
    where.on_camera_info(good_info)
    for _ in range(2):  # with little memory, the first one releases what was drawn
        where.on_depth(good_depth)
    assert _ask(where, header(), WIDTH, HEIGHT, BOX), f"no position from valid inputs: {where.complaint}"
    assert where.bearing(header(), WIDTH, HEIGHT, BOX) is not None and not where.complaint, where.complaint
    return found


def _ask(where: PositionEstimator, head: SimpleNamespace, width: int, height: int, box: Any) -> bool:
    """Locate a box; return whether there is a position, which must be finite."""
    bearing = where.bearing(head, width, height, box)
    assert bearing is None or math.isclose(math.hypot(*bearing), 1.0, rel_tol=1e-6), bearing
    found = where.position(head, width, height, box)
    if found is not None:
        numbers = (found.x, found.y, found.z, *found.covariance.ravel(), *found.range[:2])
        assert all(map(math.isfinite, numbers)) and found.range.distance > 0.0, found
    complaint = where.complaint
    assert isinstance(complaint, str) and len(complaint) <= 1000
    complaint.encode()
    return found is not None


def _header(draw: Random) -> SimpleNamespace:
    stamp = SimpleNamespace(sec=odd_int(draw, -(2**31), 2**31 - 1), nanosec=odd_int(draw, 0, 2**32 - 1))
    return SimpleNamespace(stamp=stamp, frame_id=draw.choice(("lens", "", odd_text(draw))))


def _changed(draw: Random, message: SimpleNamespace, wrong: dict[str, Any]) -> SimpleNamespace:
    """Return a message of which some fields are what ``wrong`` says, a few of them what no field is."""
    for name in some(draw, list(wrong)):
        setattr(message, name, wrong[name]() if draw.random() < 0.97 else odd_thing(draw))
    return message


def drawn_info(draw: Random) -> SimpleNamespace:
    """Return camera information with some fields wrong."""
    model, d = draw.choice(LENSES)
    size = draw.choice(((WIDTH, HEIGHT), (2 * WIDTH, 2 * HEIGHT), (320, 240)))
    info = camera_info(size, [value * size[0] / WIDTH if index != 8 else 1.0 for index, value in enumerate(K)])
    info.distortion_model, info.d = model, array.array("d", d)

    def matrix(values: Any) -> Any:
        several = draw.choice((1, 1, 2, 9))
        changed = list(values)
        for _ in range(several):
            changed[draw.randrange(len(changed))] = odd_float(draw)
        return np.array(changed)

    def coefficients() -> Any:
        count = draw.choice((len(d), 4, 5, 8, 12, 14, 300))
        usual = [draw.gauss(0.0, draw.choice((0.01, 1.0, 100.0))) for _ in range(count)]
        return array.array("d", [odd_float(draw) if draw.random() < 0.1 else value for value in usual])

    def region() -> Any:
        return SimpleNamespace(
            **{name: odd_int(draw, 0, 2**32 - 1) if draw.random() < 0.5 else draw.randrange(700) for name in _REGION}
        )

    wrong = {
        "width": lambda: odd_int(draw, 0, 2**32 - 1),
        "height": lambda: odd_int(draw, 0, 2**32 - 1),
        "k": lambda: matrix(info.k),
        "p": lambda: matrix(info.p),
        "d": coefficients,
        "distortion_model": lambda: draw.choice(("fisheye", "plumb_bob", "equidistant", odd_text(draw))),
        "binning_x": lambda: odd_int(draw, 0, 2**32 - 1),
        "binning_y": lambda: odd_int(draw, 0, 2**32 - 1),
        "roi": region,
        "header": lambda: _header(draw),
    }
    return _changed(draw, info, wrong)


_REGION = ("x_offset", "y_offset", "width", "height")


def drawn_depth(draw: Random) -> SimpleNamespace:
    """Return a depth image with some fields, or its depths, wrong."""
    encoding = draw.choice(("16UC1", "32FC1"))
    divisor = draw.choice((10, 10, 10, 40, 1))
    depths = np.full((HEIGHT // divisor, WIDTH // divisor), abs(draw.gauss(3.0, 2.0)))
    message = depth_image(depths, encoding, draw.random() < 0.3, draw.choice((0, 3)))
    if encoding == "32FC1" and draw.random() < 0.5:
        values = np.array([odd_float(draw) for _ in range(7)])
        with np.errstate(all="ignore"):
            message = depth_image(np.resize(values, depths.shape), encoding)
    elif draw.random() < 0.3:
        message.data = array.array("B", draw.randbytes(len(message.data)))
    wrong = {
        "width": lambda: odd_int(draw, 0, 2**32 - 1),
        "height": lambda: odd_int(draw, 0, 2**32 - 1),
        "step": lambda: odd_int(draw, 0, 2**32 - 1),
        "is_bigendian": lambda: odd_int(draw, 0, 255),
        "encoding": lambda: draw.choice(_ENCODINGS) if draw.random() < 0.7 else odd_text(draw),
        "data": lambda: message.data[: draw.randrange(len(message.data) + 1)],
        "header": lambda: _header(draw),
    }
    return _changed(draw, message, wrong)
