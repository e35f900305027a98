# SPDX-License-Identifier: Apache-2.0
"""The image buffer: what it stores and discards, and its errors for other stamps."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimp_ros.images.stamps import stamp_ns
from dimp_ros.node.image_buffer import ImageBuffer, ImageNotBuffered

ZERO = SimpleNamespace(sec=0, nanosec=0)


def stamp(seconds: float) -> SimpleNamespace:
    nanoseconds = round(seconds * 1e9)
    return SimpleNamespace(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def frame(seconds: float, size: int = 10) -> SimpleNamespace:
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp(seconds)), data=bytes(size))


def test_image_is_found_by_stamp_and_zero_is_the_newest():
    history = ImageBuffer(seconds=2.0, max_bytes=10**6)
    frames = [frame(100 + 0.1 * number) for number in range(10)]
    for one in frames:
        history.add(one)
    assert all(history.find(one.header.stamp) is one for one in frames)
    assert history.find(ZERO) is frames[-1]


def test_stamp_without_its_last_digits_is_found():
    history = ImageBuffer(seconds=2.0, max_bytes=10**6)
    history.add(frame(100.0))
    history.add(held := frame(100.033333333))
    history.add(frame(100.066666667))
    assert history.find(stamp(100.0333)) is held
    with pytest.raises(ImageNotBuffered, match=r"100\.033333333 and 100\.066666667"):
        history.find(stamp(100.036))


def test_with_two_images_of_one_stamp_the_later_one_is_meant():
    history = ImageBuffer(seconds=2.0, max_bytes=10**6)
    history.add(frame(100.0))
    history.add(later := frame(100.0))
    assert history.find(stamp(100.0)) is later


def test_images_older_than_the_span_are_released():
    history = ImageBuffer(seconds=1.0, max_bytes=10**6)
    for number in range(30):
        history.add(frame(100 + 0.1 * number))
    with pytest.raises(ImageNotBuffered) as error:
        history.find(stamp(100.0))
    for words in ("too old", "from 101.900000000 to 102.900000000", "11 images", "history_seconds"):
        assert words in str(error.value)


def test_an_empty_history_says_that_no_image_has_come():
    history = ImageBuffer(seconds=1.0, max_bytes=10**6)
    with pytest.raises(ImageNotBuffered, match="no image"):
        history.find(ZERO)
    history.add(frame(1.0))
    history.clear()
    with pytest.raises(ImageNotBuffered, match="no image"):
        history.find(ZERO)


def test_a_request_that_overtakes_its_image_waits_for_it():
    history = ImageBuffer(seconds=2.0, max_bytes=10**6)
    history.add(frame(100.0))
    late = frame(100.2)
    camera = threading.Timer(0.1, lambda: [history.add(frame(100.1)), history.add(late)])
    camera.start()
    assert history.find(stamp(100.2)) is late
    camera.join()


def test_image_to_come_is_awaited_for_a_bounded_time():
    history = ImageBuffer(seconds=2.0, max_bytes=10**6)
    history.add(frame(100.0))
    begin = time.monotonic()
    with pytest.raises(ImageNotBuffered, match="ahead"):
        history.find(stamp(105.0))
    assert time.monotonic() - begin < 0.9  # to wait takes that long
    with pytest.raises(ImageNotBuffered, match="ahead"):
        history.find(stamp(100.5))
    assert 0.9 < time.monotonic() - begin < 30.0


def test_stamps_that_jump_back_release_older_images():
    history = ImageBuffer(seconds=2.0, max_bytes=10**6)
    history.add(frame(100.0))
    history.add(again := frame(50.0))
    assert len(history) == 1 and history.find(ZERO) is again


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 400)), min_size=1, max_size=60))
def test_buffer_is_bounded_but_keeps_the_newest_image(arrivals):
    history = ImageBuffer(seconds=3.0, max_bytes=1000, max_frames=7)
    held: list[SimpleNamespace] = []
    now = 10.0
    for step, size in arrivals:
        now += step
        history.add(newest := frame(now, size))
        held.append(newest)
        assert history.find(ZERO) is newest
        found = [kept for _, kept in history._frames]
        assert [id(one) for one in found] == [id(one) for one in held[-len(found) :]], "one in the middle was let go"
        assert len(found) == len(history) <= 7
        assert len(found) == 1 or sum(len(one.data) for one in found) <= 1000
        assert stamp_ns(newest.header.stamp) - stamp_ns(found[0].header.stamp) <= 3e9
