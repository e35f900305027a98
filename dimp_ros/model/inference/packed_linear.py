# SPDX-License-Identifier: Apache-2.0
"""Products of a few rows with a fixed matrix.

With few rows the layout of the matrix decides the speed: on a CPU oneDNN packs it for its kernels once.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 10
"""The number of rows that the layout is chosen for; any number is correct."""


class PackedLinear:
    """``x @ matrix + offset``, with ReLU if ``relu``.

    :param matrix: ``Tensor[K, M]``; it is copied. :param offset: ``Tensor[M]`` or None.
    :param dtype: of the computation.
    """

    def __init__(self, matrix: Tensor, offset: Tensor | None, relu: bool, dtype: torch.dtype) -> None:
        self.dtype, self._relu = dtype, relu
        self._weight = matrix.detach().T.to(dtype, copy=True).contiguous()
        self._offset = None if offset is None else offset.detach().to(dtype, copy=True)
        self._packed = _pack(self._weight) if matrix.device.type == "cpu" and onednn_packs(dtype) else None

    def __call__(self, x: Tensor) -> Tensor:
        """Map ``Tensor[N, K]`` to ``Tensor[N, M]`` of the matrix's type."""
        x = x.to(self.dtype)
        if self._packed is not None:
            return _product(x, self._packed, self._offset, self._relu)
        out = F.linear(x, self._weight, self._offset)
        return out.relu_() if self._relu else out


def _pack(weight: Tensor) -> Tensor:
    """Pack ``Tensor[M, K]`` for oneDNN's kernels."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
    return packed


def _product(x: Tensor, packed: Tensor, offset: Tensor | None, relu: bool) -> Tensor:
    """Multiply, add and apply ReLU with oneDNN."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, offset, "relu" if relu else "none", [], "")
    return out


@functools.cache
def onednn_packs(dtype: torch.dtype) -> bool:
    """Tell whether this torch has oneDNN's products with packed matrices and computes an example correctly.

    They are no public interface: with another version of torch the package may be slower, but not wrong.
    """
    if not torch.backends.mkldnn.is_available() or dtype is torch.float64:
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight, offset = (torch.randn(shape, generator=generator).to(dtype) for shape in ((3, 16), (8, 16), (8,)))
    try:
        packed = _pack(weight)
        alone, cut = _product(x, packed, None, relu=False), _product(x, packed, offset, relu=True)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    plain = x.float() @ weight.float().T
    rough = 1e-4 if dtype is torch.float32 else 0.2
    return torch.allclose(alone.float(), plain, atol=rough) and torch.allclose(
        cut.float(), (plain + offset.float()).clamp(min=0), atol=rough
    )
