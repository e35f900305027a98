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
        count = int(np.prod(shape))
        bits = np.frombuffer(self._twister.bytes(4 * count), "<u4").reshape(shape) & 0xFFFFFF
        return bits.astype(np.float32) * np.float32(2**-24)
