# SPDX-License-Identifier: Apache-2.0
"""Random numbers of the tracker: those that PyTorch draws for a seed, drawn without it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class UniformNumbers:
    """Uniform numbers in [0, 1) in float32, the same as ``torch.rand`` draws with a generator of this seed.

    Both take the lower 24 bits of the Mersenne Twister's numbers.
    """

    def __init__(self, seed: int) -> None:
        self._twister = np.random.RandomState(seed)

    def __call__(self, *shape: int) -> NDArray[np.float32]:
        """Draw an array of a shape."""
        return (self._bits(shape) & 0xFFFFFF).astype(np.float32) * np.float32(2**-24)

    def integers(self, high: int, *shape: int) -> NDArray[np.intp]:
        """Draw integers below ``high``, as ``torch.randint`` does."""
        return (self._bits(shape) % np.uint32(high)).astype(np.intp)

    def normal(self, *shape: int) -> NDArray[np.float32]:
        """Draw normally distributed numbers, as ``torch.randn`` does, up to rounding; 16 at a time by Box and Muller.

        :param shape: of an array whose size is a multiple of 16.
        """
        uniform = self(*shape).reshape(-1, 2, 8).astype(np.float64)
        radius, angle = np.sqrt(-2 * np.log(1 - uniform[:, 0])), 2 * np.pi * uniform[:, 1]
        drawn = np.stack((radius * np.cos(angle), radius * np.sin(angle)), 1)
        return drawn.astype(np.float32).reshape(shape)

    def _bits(self, shape: tuple[int, ...]) -> NDArray[np.uint32]:
        """Draw 32 bits for each number."""
        return np.frombuffer(self._twister.bytes(4 * int(np.prod(shape))), "<u4").reshape(shape)
