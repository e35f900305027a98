# SPDX-License-Identifier: Apache-2.0
"""Texts that leave the process are bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dimp_ros.ros_utils.text import MAX_LINES, MAX_TEXT, shortened, traceback_text


@given(st.text(max_size=30), st.integers(0, 100_000), st.text(max_size=30))
def test_a_long_text_keeps_its_ends_within_the_limit(head, count, tail):
    text = head + "x" * count + tail
    short = shortened(text)
    assert len(short) <= MAX_TEXT and short.startswith(head) and short.endswith(tail)
    assert short == text or str(len(text)) in short


def test_a_traceback_is_bounded_in_lines_and_in_their_length():
    def fall(depth: int) -> None:
        if depth:
            fall(depth - 1) if depth % 2 else climb(depth - 1)
        raise ValueError("y" * 745_000)

    def climb(depth: int) -> None:
        fall(depth)

    try:
        fall(200)
    except ValueError as error:
        text = traceback_text(error)
    assert len(text.split("\n")) <= MAX_LINES + 1 and max(map(len, text.split("\n"))) <= MAX_TEXT
    assert "ValueError: yyy" in text and "Traceback" in text
