# SPDX-License-Identifier: Apache-2.0
"""The sample memory: its weights and what it replaces."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimp_ros.tracker.memory import SampleMemory


def make(first=3, capacity=8, share=0.25):
    return SampleMemory(np.zeros((capacity, 1, 1, 1)), np.zeros((first, 4)), share)


def add(memory, number, rate=0.01):
    memory.add(np.full((1, 1, 1), number), np.full(4, number), rate)


def held(memory):
    return memory.features.flatten().tolist()


def test_the_first_frames_samples_weigh_the_same():
    assert make(4).weights.tolist() == [0.25] * 4


def test_first_sample_gets_the_rate_later_ones_slightly_more():
    memory = make()
    add(memory, 1)
    np.testing.assert_allclose(memory.weights, [0.33, 0.33, 0.33, 0.01], rtol=1e-6)
    add(memory, 2)
    weights = memory.weights
    assert float(weights[4] / weights[3]) == pytest.approx(1 / 0.99, rel=1e-4)


def test_a_hard_negative_counts_more():
    memory = make()
    add(memory, 1)
    add(memory, 2, rate=0.02)
    assert float(memory.weights[4] / memory.weights[3]) == pytest.approx(1 / 0.98, rel=1e-4)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from([0.0, 0.01, 0.02, 0.3]), max_size=120), st.floats(0, 0.9))
def test_weights_sum_to_one_and_the_first_frame_keeps_its_share(rates, share):
    memory = make(share=share)
    for number, rate in enumerate(rates, start=1):
        add(memory, number, rate)
        assert float(memory.weights.sum()) == pytest.approx(1, abs=1e-5)
        assert float(memory.weights[:3].sum()) >= share - 1e-5
        assert (memory.weights >= 0).all()


def test_full_memory_replaces_the_lightest_later_sample():
    memory = make()
    for number in range(1, 6):
        add(memory, number)
    assert held(memory) == [0, 0, 0, 1, 2, 3, 4, 5]
    add(memory, 6)  # sample 1, the oldest, is the lightest
    assert held(memory) == [0, 0, 0, 6, 2, 3, 4, 5]
    for number in range(7, 40):
        add(memory, number)
    assert held(memory)[:3] == [0, 0, 0]
    assert sorted(held(memory)[3:]) == [35, 36, 37, 38, 39]
    assert memory.boxes[:, 0].tolist() == held(memory)


def test_a_memory_without_room_is_refused():
    with pytest.raises(ValueError, match="must exceed the 3 samples"):
        make(3, 3)
