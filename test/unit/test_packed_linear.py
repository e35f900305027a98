# SPDX-License-Identifier: Apache-2.0
"""Products with a packed matrix equal plain products, for any number of rows."""

import pytest
import torch

from dimp_ros.model.inference import packed_linear as fixed_matrix
from dimp_ros.model.inference.packed_linear import PackedLinear

ROUGH = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}


def made(dtype):
    generator = torch.Generator().manual_seed(0)
    numbers = (torch.randn(shape, generator=generator).to(dtype) for shape in ((72, 24), (24,), (33, 72)))
    return list(numbers)


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("dtype", ROUGH)
@pytest.mark.parametrize("rows", [1, 10, 33])
def test_products_are_those_of_torch(monkeypatch, packs, dtype, rows):
    if not packs:
        monkeypatch.setattr(fixed_matrix, "onednn_packs", lambda dtype: False)
    matrix, offset, x = made(dtype)
    x = x[:rows]
    plain = x.double() @ matrix.double()
    bound = {"rtol": ROUGH[dtype], "atol": 10 * ROUGH[dtype]}
    torch.testing.assert_close(PackedLinear(matrix, None, False, dtype)(x).double(), plain, **bound)
    cut = PackedLinear(matrix, offset, True, dtype)(x)
    assert cut.dtype is dtype and (cut == 0).any() and (cut > 0).any()
    torch.testing.assert_close(cut.double(), (plain + offset.double()).clamp(min=0), **bound)


def test_matrix_is_copied_and_inputs_are_converted():
    matrix, offset, x = made(torch.float32)
    product = PackedLinear(matrix, offset, False, torch.float32)
    before = product(x.double())
    matrix.zero_()
    offset.zero_()
    assert before.dtype is torch.float32 and torch.equal(product(x), before)


def test_a_torch_without_the_layout_is_noticed(monkeypatch):
    monkeypatch.setattr(fixed_matrix, "_pack", lambda weight: weight.no_such_attribute)
    fixed_matrix.onednn_packs.cache_clear()
    try:
        assert not fixed_matrix.onednn_packs(torch.float32)
        matrix, _, x = made(torch.float32)
        torch.testing.assert_close(PackedLinear(matrix, None, False, torch.float32)(x), x @ matrix)
    finally:
        fixed_matrix.onednn_packs.cache_clear()
