# SPDX-License-Identifier: Apache-2.0
"""Drawing on images: the box at the target, in the colour of its state."""

from __future__ import annotations

import numpy as np
import pytest

from dimp_ros.images.overlay import COLOURS, draw_target


def grey() -> np.ndarray:
    return np.full((240, 320, 3), 128, np.uint8)


def is_colour(picture: np.ndarray, x: int, y: int, colour: tuple[int, int, int]) -> bool:
    """Whether a pixel at or next to (x, y) has the colour."""
    around = picture[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].reshape(-1, 3)
    return bool((np.abs(around.astype(int) - colour).max(1) < 40).any())


@pytest.mark.parametrize("state", ["TRACKING", "UNCERTAIN"])
def test_box_is_drawn_in_the_colour_of_the_state(state):
    picture = draw_target(grey(), state, box=(100.0, 80.0, 60.0, 40.0), confidence=0.5)
    for x, y in ((100, 80), (160, 80), (100, 120), (160, 120), (130, 80), (100, 100), (160, 100), (130, 120)):
        assert is_colour(picture, x, y, COLOURS[state]), (x, y)
    assert (picture[95:105, 120:140] == 128).all(), "the target itself is painted over"


def test_a_lost_target_has_a_caption_and_no_box():
    picture = draw_target(grey(), "LOST")
    assert (picture[40:] == 128).all() and (picture[:20] != 128).any()


def test_held_box_is_drawn_unlike_a_current_one():
    picture = draw_target(grey(), "TRACKING", box=(100.0, 80.0, 60.0, 40.0), held=True)
    assert not is_colour(picture, 130, 80, COLOURS["TRACKING"]) and not (picture[75:85, 130] == 128).all()


@pytest.mark.parametrize("confidence", [0.0, 0.25, 1.0])
def test_the_bar_is_as_long_as_the_confidence(confidence):
    last = draw_target(grey(), "TRACKING", confidence=confidence)[-1]
    assert (last == COLOURS["TRACKING"]).all(1).sum() == round(320 * confidence)


@pytest.mark.parametrize("box", [(-50.0, -50.0, 1000.0, 1000.0), (1e9, 1e9, 1e9, 1e9), (5.0, 5.0, 0.01, 0.01)])
@pytest.mark.parametrize("shape", [(1, 1), (8, 3000), (240, 320)])
def test_any_box_can_be_drawn_on_any_image(box, shape):
    picture = np.zeros((*shape, 3), np.uint8)
    assert draw_target(picture, "TRACKING", box=box, confidence=0.5, target_id="x" * 99) is picture


def test_an_unknown_state_is_refused():
    with pytest.raises(ValueError, match="TRACKING"):
        draw_target(grey(), "FLYING")
