# SPDX-License-Identifier: Apache-2.0
"""Drawing of a target's box, state and confidence on an image, the same in every program."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

COLOURS: dict[str, tuple[int, int, int]] = {
    "UNINITIALIZED": (160, 160, 160),
    "TRACKING": (80, 220, 60),
    "UNCERTAIN": (0, 190, 255),
    "LOST": (60, 60, 255),
}
"""Blue, green, red of each state."""

HELD_COLOUR = (200, 200, 200)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_target(
    image: NDArray[np.uint8],
    state: str,
    *,
    box: Sequence[float] | None = None,
    confidence: float | None = None,
    target_id: str = "",
    note: str = "",
    held: bool = False,
    line: int = 0,
) -> NDArray[np.uint8]:
    """Draw one target on ``image``, in place, and return it.

    :param image: writable HxWx3 uint8 BGR.
    :param state: name of the tracker's state, a key of `COLOURS`.
    :param box: (x, y, w, h) in pixels, top-left corner first; None draws no box.
    :param confidence: 0..1, shown as a number and a bar; None shows neither.
    :param note: further text for the caption, such as a frame rate.
    :param held: box and state are of an earlier image: the box is thin and grey, the state is not shown.
    :param line: line of the caption, from the top; line 0 adds the bar of the confidence at the bottom.
    :raises ValueError: for an unknown state.
    """
    if state not in COLOURS:
        raise ValueError(f"state {state!r} is unknown, use one of {', '.join(COLOURS)}")
    colour = HELD_COLOUR if held else COLOURS[state]
    unit = max(image.shape[0], image.shape[1]) / 640
    if box is not None:
        _draw_box(image, box, colour, 1 if held else max(2, round(2 * unit)), outlined=not held)
    number = "" if confidence is None else f"{confidence:.2f}"
    parts = [f"#{target_id}" if target_id else "", "" if held else state, number, note]
    _draw_caption(image, "  ".join(part for part in parts if part), colour, max(0.35, 0.5 * unit), line)
    if confidence is not None and line == 0:
        _draw_bar(image, confidence, colour, max(2, round(4 * unit)))
    return image


def _draw_box(
    image: NDArray[np.uint8], box: Sequence[float], colour: tuple[int, int, int], thickness: int, *, outlined: bool
) -> None:
    """Draw a box with sub-pixel corners, clipped to the image."""
    x, y, w, h = np.clip(np.asarray(box, dtype=np.float64), -1e5, 1e5)
    fraction = 4  # cv2's corners have 4 fractional bits; pixel i's centre is at i + 0.5 in our convention
    first, last = ([round((value - 0.5) * 2**fraction) for value in corner] for corner in ((x, y), (x + w, y + h)))
    if outlined:
        cv2.rectangle(image, first, last, (0, 0, 0), thickness + 2, cv2.LINE_AA, fraction)
    cv2.rectangle(image, first, last, colour, thickness, cv2.LINE_AA, fraction)


def _draw_caption(image: NDArray[np.uint8], text: str, colour: tuple[int, int, int], scale: float, line: int) -> None:
    """Write a line in the top-left corner, on a dark background."""
    thickness = max(1, round(scale * 1.6))
    (width, height), baseline = cv2.getTextSize(text, _FONT, scale, thickness)
    pad = max(2, height // 2)
    top = line * (height + baseline + pad + 1)
    cv2.rectangle(image, (0, top), (width + 2 * pad, top + height + baseline + pad), (24, 24, 24), cv2.FILLED)
    cv2.putText(image, text, (pad, top + height + pad // 2 + 1), _FONT, scale, colour, thickness, cv2.LINE_AA)


def _draw_bar(image: NDArray[np.uint8], confidence: float, colour: tuple[int, int, int], height: int) -> None:
    """Draw the confidence as a bar along the bottom edge."""
    rows, columns = image.shape[:2]
    length = round(columns * min(max(confidence, 0.0), 1.0))
    image[rows - height :, :] = (24, 24, 24)
    image[rows - height :, :length] = colour
