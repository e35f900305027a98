# SPDX-License-Identifier: Apache-2.0
"""Drops are numbered: a start that was asked for before a drop of its target, or of all, is told from a later one."""

import pytest

from dimp_ros.node.drop_log import MOST_NAMES, DropLog


def test_a_drop_counts_for_its_target_and_one_of_all_for_each():
    log = DropLog()
    before = log.number
    assert not log.dropped_since("cup", before) and log.dropped_since("cup", before - 1), "a restart drops all"
    number = log.add("cup")
    assert number == log.number == before + 1
    assert log.dropped_since("cup", before) and not log.dropped_since("ball", before)
    assert not log.dropped_since("cup", number) and not log.dropped_since("", before)
    log.add("")
    assert log.dropped_since("ball", number) and log.dropped_since("", number)
    assert not log.dropped_since("cup", log.number)


def test_numbers_grow_over_restarts():
    clocks = Clocks()
    first = clocks.log()
    for _ in range(3):
        clocks.pass_time(0.1)
        first.add("")
    clocks.pass_time(0.1)
    assert clocks.log().number > first.number


def test_names_are_bounded_and_those_forgotten_count_as_dropped():
    log = DropLog()
    before = log.number
    for number in range(MOST_NAMES):
        log.add(str(number))
    assert not log.dropped_since("other", before)
    log.add("one more")
    assert log.dropped_since("0", before) and log.dropped_since("other", before)
    assert not log.dropped_since("0", before + 1)


SECOND = 1_000_000_000


class Clocks:
    """A clock that can be set, and one that cannot."""

    def __init__(self) -> None:
        self.now, self.ahead = 1000 * SECOND, 5000 * SECOND

    def log(self) -> DropLog:
        """Return a log by them."""
        return DropLog(lambda: self.now + self.ahead, lambda: self.now)

    @property
    def time(self) -> int:
        """What the one that can be set shows."""
        return self.now + self.ahead

    def pass_time(self, seconds: float) -> None:
        """Advance both."""
        self.now += int(seconds * SECOND)


@pytest.mark.parametrize(("received", "drops"), [(-3, 2), (-2, 1), (-1.5, 1), (-1, 0), (0, 0), (-3600, 2), (None, 0)])
def test_a_start_is_told_by_the_time_of_its_reception(received, drops):
    clocks = Clocks()
    log = clocks.log()
    log.add("cup")
    clocks.pass_time(1.5)
    log.add("", clocks.time - SECOND // 2)
    clocks.pass_time(0.5)
    at = 0 if received is None else clocks.time + int(received * SECOND)
    assert log.number - log.number_at(at) == drops


@pytest.mark.parametrize("step", [-3600.0, -10.0, -0.2, 0.2, 120.0])
def test_a_start_from_about_the_time_at_which_the_clock_is_set_is_not_taken_for_a_later_one(step):
    clocks = Clocks()
    log = clocks.log()
    received = clocks.time
    clocks.pass_time(0.05)
    clocks.ahead += int(step * SECOND)
    clocks.pass_time(0.02)
    log.add("", clocks.time)
    clocks.pass_time(0.3)
    assert log.number_at(received) < log.number


@pytest.mark.parametrize("step", [-3600.0, -10.0, 120.0])
def test_drops_of_long_ago_refuse_no_start_after_the_clock_was_set(step):
    clocks = Clocks()
    log = clocks.log()
    log.add("cup")
    clocks.pass_time(16.0)
    clocks.ahead += int(step * SECOND)
    assert log.number_at(clocks.time) == log.number
    log.add("cup")
    assert log.number_at(clocks.time) < log.number, "which was first is not known"
    clocks.pass_time(16.0)
    assert log.number_at(clocks.time) == log.number


def test_a_clock_that_is_slewed_is_not_set():
    clocks = Clocks()
    log = clocks.log()
    for _ in range(1000):
        clocks.pass_time(0.1)
        clocks.ahead += SECOND // 1000
        assert log.number
    log.add("cup")
    clocks.pass_time(0.1)
    assert log.number_at(clocks.time) == log.number
