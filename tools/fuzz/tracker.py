# SPDX-License-Identifier: Apache-2.0
"""Boxes, images and settings for the real tracker, small and with random weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import cv2
import numpy as np
import torch

from dimp_ros.tracker import DimpTracker
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.result import TargetState
from fuzz.draw import odd_float, odd_text, odd_thing
from fuzz.run import Attempt

CROP_SIZE = 96
MOST_STEPS = 6
"""Largest number of steps, samples and the like: more would only take longer."""

_KEPT = ("crop_size", "memory_size", "dropout_copies", "min_target_side")
_IN_SIGHT = (TargetState.TRACKING, TargetState.UNCERTAIN)


@contextmanager
def trackers() -> Iterator[Attempt]:
    """Use a tracker that tracks a target, which must exist afterwards whatever was refused."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    tracker = DimpTracker("dimp_lite", "cpu", TrackerConfig(crop_size=CROP_SIZE), weights="random")
    yield lambda draw: _attempt(draw, tracker)


def _attempt(draw: Random, tracker: DimpTracker) -> bool:
    """Start and update targets; return whether the drawn one was accepted."""
    tracker.drop()
    tracker.config = _config(draw)
    tracker.init(_picture(draw, 160, 120), (60.0, 40.0, 30.0, 24.0), target_id="cup")
    picture = _picture(draw, draw.randint(1, 300), draw.randint(1, 200))
    name = draw.choice(("cup", "other", odd_text(draw)))
    taken = False
    try:
        what = picture if draw.random() < 0.95 else draw.choice((odd_thing(draw), picture.astype(float), picture[:0]))
        _examine(tracker.init(what, _box(draw, picture), target_id=name))
        taken = True
    except ValueError as error:
        assert 10 < len(str(error)) <= 1000, str(error)
    assert set(tracker.targets) == ({"cup", name} if taken else {"cup"}), tracker.targets
    for _ in range(draw.choice((1, 1, 3))):
        if draw.random() < 0.3:
            picture = _picture(draw, draw.randint(1, 300), draw.randint(1, 200))
        results = tracker.update_all(picture)
        assert set(results) == set(tracker.targets)
        for result in results.values():
            _examine(result)
    return taken


def _examine(result: Any) -> None:
    """Assert that the result of a visible target is finite."""
    assert 0.0 <= result.confidence <= 1.0, result
    if result.state in _IN_SIGHT:
        assert all(map(math.isfinite, (*result.box, result.peak, result.distractor_ratio))), result
        assert result.box[2] > 0.0 and result.box[3] > 0.0, result


def _picture(draw: Random, width: int, height: int) -> Any:
    """Return noise, one colour, or an image with an edge; sometimes grey."""
    shape = (height, width, 3) if draw.random() < 0.8 else (height, width)
    kind = draw.randrange(4)
    if kind == 0:
        return np.full(shape, draw.choice((0, 128, 255)), np.uint8)
    picture = np.random.default_rng(draw.getrandbits(63)).integers(0, 256, shape, np.uint8)
    if kind == 1:
        picture[: height // 2] = draw.randrange(256)
    return picture


def _box(draw: Random, picture: Any) -> Any:
    """Return a box inside an image, sometimes with one unexpected number."""
    height, width = picture.shape[:2]
    w, h = draw.uniform(0.0, width), draw.uniform(0.0, height)
    box = [draw.uniform(0.0, width - w), draw.uniform(0.0, height - h), w, h]
    kind = draw.randrange(10)
    if kind < 2:
        box[draw.randrange(4)] = odd_float(draw)
    elif kind == 2:
        box[draw.randrange(2)] -= draw.uniform(0.0, 2.0 * max(width, height))
    elif kind == 3:
        box[2 + draw.randrange(2)] *= draw.choice((0.01, 3.0, 10.0))
    elif kind == 4:
        return [odd_float(draw) for _ in range(draw.choice((4, 4, 0, 3, 5)))]
    return box


def _config(draw: Random) -> TrackerConfig:
    """Return settings with some values anywhere in their range; those that cost time stay small."""
    settings: dict[str, Any] = {"augment": draw.random() < 0.1, "augment_blurs": (1.0, 2.0), "augment_rotations": ()}
    settings.update(dropout_copies=draw.randrange(2), proposals=3, refine_steps=2, init_steps=3)
    fields = [one for one in dataclasses.fields(TrackerConfig) if one.metadata["range"][0] is not None]
    for one in draw.sample(fields, draw.choice((0, 2, 8))):
        low, high = one.metadata["range"]
        if isinstance(one.default, tuple) or one.name in _KEPT:
            continue
        high = high if high is not None else 1e6
        if isinstance(one.default, int):
            settings[one.name] = draw.randint(low, max(low, min(int(high), MOST_STEPS)))
        else:
            settings[one.name] = draw.choice((low, float(high), draw.uniform(low, high)))
    settings["best_boxes"] = min(settings.get("best_boxes", 1), settings["proposals"])
    return TrackerConfig(crop_size=CROP_SIZE, **settings)
