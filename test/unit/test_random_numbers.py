# SPDX-License-Identifier: Apache-2.0
"""The tracker draws the numbers of PyTorch's generator."""

import numpy as np
import pytest
import torch

from dimp_ros.tracker.random_numbers import UniformNumbers


@pytest.mark.parametrize("seed", [0, 12345, 2**31 - 1])
def test_numbers_are_those_of_torch(seed):
    draw, generator = UniformNumbers(seed), torch.Generator().manual_seed(seed)
    for shape in ((2, 112), (9, 4), (3,)):
        assert np.array_equal(draw(*shape), torch.rand(shape, generator=generator).numpy())
    assert np.array_equal(draw.integers(4, 3, 40), torch.randint(0, 4, (3, 40), generator=generator).numpy())
    np.testing.assert_allclose(draw.normal(3, 40, 4), torch.randn((3, 40, 4), generator=generator), atol=1e-5)
    assert np.array_equal(draw(5), torch.rand(5, generator=generator).numpy()), "as many were drawn"
