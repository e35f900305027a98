# SPDX-License-Identifier: Apache-2.0
"""Rate control of the console on simulated links: quality and rate of the images follow the link."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimp_ros.apps.console.rate_control import MAX_STATUSES, WINDOW, RateControl

BYTES = (160e3, 90e3, 50e3, 28e3, 12e3, 6e3)
"""Of an image in each quality."""


class Wire:
    """A link with a bandwidth, bytes a second, and a delay, seconds there and back, driven by a clock of its own."""

    def __init__(self, bandwidth: float, delay: float, max_rate: float = 20.0) -> None:
        self.bandwidth, self.delay = bandwidth, delay
        self.now = 100.0
        self.link = RateControl(len(BYTES), max_rate, self.now)
        self.most_under_way = self.sent = 0
        self._free_at = self.now
        self._coming: list[tuple[float, int]] = []
        self._number = 0
        self._status_at = 0.0
        self.ages: list[float] = []
        self.levels: list[int] = []

    def _send(self, size: float, image: bool) -> None:
        self._number += 1
        self._free_at = max(self._free_at, self.now) + size / self.bandwidth
        self._coming.append((self._free_at + self.delay, self._number))
        self.link.sent(self._number, self.now, image=image)
        if image:
            self.sent += 1
            self.ages.append(self._free_at + self.delay / 2 - self.now)
            self.levels.append(self.link.level)

    def run(self, seconds: float) -> None:
        """Let time go by, as a session does."""
        end, step = self.now + seconds, 0.005
        while self.now < end:
            for at, number in [one for one in self._coming if one[0] <= self.now]:
                self._coming.remove((at, number))
                self.link.acknowledged(number, self.now)
            probe = self.link.wants_probe(self.now) and self.link.is_idle()
            if (probe or self.now - self._status_at > 0.5) and self.link.may_send_status():
                self._status_at = self.now
                self._send(400, image=False)
            if self.link.may_send_image(self.now):
                self._send(BYTES[self.link.level], image=True)
            self.most_under_way = max(self.most_under_way, len(self._coming))
            self.now += step


def test_good_link_gets_best_quality_at_full_rate():
    wire = Wire(bandwidth=20e6, delay=0.004)
    wire.run(20.0)
    assert wire.link.level == 0
    assert wire.link.rate(wire.now) == pytest.approx(20.0, rel=0.1)


def test_slow_link_gets_small_and_fresh_images():
    wire = Wire(bandwidth=250e3, delay=0.03)
    wire.run(30.0)
    wire.ages.clear()
    wire.levels.clear()
    wire.run(60.0)
    assert wire.link.rate(wire.now) > 5.0
    ages = sorted(wire.ages)
    assert ages[len(ages) // 2] < 0.3, "half of the images are fresh when they arrive"
    assert min(wire.levels) >= 1 and sum(level >= 2 for level in wire.levels) > 0.9 * len(wire.levels)


def test_constant_delay_does_not_lower_the_quality():
    wire = Wire(bandwidth=20e6, delay=0.7)
    wire.run(90.0)
    assert wire.link.level == 0
    assert wire.sent / 90.0 == pytest.approx(WINDOW / 0.7, rel=0.2)


def test_a_link_that_becomes_worse_and_better_is_followed():
    wire = Wire(bandwidth=20e6, delay=0.01)
    wire.run(20.0)
    assert wire.link.level == 0
    wire.bandwidth = 100e3
    wire.run(20.0)
    assert wire.link.level >= 3
    wire.bandwidth = 20e6
    wire.run(60.0)
    assert wire.link.level == 0


def test_failed_quality_is_tried_less_often():
    wire = Wire(bandwidth=250e3, delay=0.02)
    wire.run(60.0)
    wire.levels.clear()
    wire.run(120.0)
    changes = sum(a != b for a, b in zip(wire.levels, wire.levels[1:], strict=False))
    assert changes <= 12, "the quality goes up and down all the time"


@settings(max_examples=25, deadline=None)
@given(st.floats(2e4, 1e8), st.floats(0.0, 1.5), st.floats(1.0, 60.0))
def test_images_under_way_and_rate_are_limited(bandwidth, delay, max_rate):
    wire = Wire(bandwidth, delay, max_rate)
    wire.run(8.0)
    assert wire.most_under_way <= WINDOW + MAX_STATUSES
    assert wire.sent <= 8.0 * max_rate + WINDOW
    assert 0 <= wire.link.level < len(BYTES)


def test_a_client_that_answers_no_more_is_sent_no_more():
    link = RateControl(len(BYTES), 20.0, 0.0)
    link.sent(1, 0.0, image=False)
    link.acknowledged(1, 0.01)
    now, number = 0.02, 2
    while now < 3.0:
        if link.may_send_image(now):
            link.sent(number, now, image=True)
            number += 1
        now += 0.01
    assert number == 2 + WINDOW
    assert link.seconds_unanswered(3.0) == pytest.approx(2.98)


def test_what_was_never_sent_cannot_be_acknowledged():
    link = RateControl(len(BYTES), 20.0, 0.0)
    link.sent(1, 0.0, image=False)
    link.acknowledged(1, 0.1)
    for number in (1, 2, 0):
        with pytest.raises(ValueError, match=f"message {number} .* not in flight"):
            link.acknowledged(number, 0.2)
