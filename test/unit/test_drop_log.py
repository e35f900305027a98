# SPDX-License-Identifier: Apache-2.0
"""Drops are numbered: a start that was asked for before a drop of its target, or of all, is told from a later one."""

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
