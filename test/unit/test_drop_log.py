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
    first = DropLog()
    first.add("")
    assert DropLog().number >= first.number - 1


def test_names_are_bounded_and_those_forgotten_count_as_dropped():
    log = DropLog()
    before = log.number
    for number in range(MOST_NAMES):
        log.add(str(number))
    assert not log.dropped_since("other", before)
    log.add("one more")
    assert log.dropped_since("0", before) and log.dropped_since("other", before)
    assert not log.dropped_since("0", before + 1)


@pytest.mark.parametrize(
    ("received", "drops"),
    [(0, 0), (99, 2), (100, 1), (150, 1), (200, 0), (210, 0), (211, 0), (-60_000_000_000, 0)],
    ids=["not known", "before both", "with the first", "between", "with the second", "now", "ahead", "long ago"],
)
def test_a_start_is_told_by_the_time_of_its_reception(received, drops):
    now = 100
    log = DropLog(lambda: now)
    log.add("cup")
    now = 205
    log.add("", 200)
    now = 210
    assert log.number - log.number_at(received) == drops


def test_drops_from_before_the_clock_was_set_back_refuse_no_start():
    now = 500
    log = DropLog(lambda: now)
    log.add("cup")
    now = 100
    assert log.number_at(90) == log.number
