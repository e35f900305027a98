# SPDX-License-Identifier: Apache-2.0
"""Convolutions with batch norm, residual and activation in one call, for networks in evaluation mode.

Batch norm is a factor and an offset for each channel: it is folded into the convolution's weights. On a CPU oneDNN also
applies the activation and adds a residual while a result is in cache, from weights that are packed for its kernels
once. The result is the same up to the order of sums.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RELU, RELU6, NONE = "relu", "relu6", "none"
_ONEDNN = {RELU: ("relu", []), RELU6: ("hardtanh", [0.0, 6.0]), NONE: ("none", [])}


class FusedConvolution:
    """``activation(norm(conv(x)) + residual)`` in one call, with fixed weights.

    :param conv: an `nn.Conv2d`. :param norm: an `nn.BatchNorm2d` in evaluation mode, or None.
    :param activation: ``relu``, ``relu6`` or ``none``. :param dtype: what is computed with.
    """

    def __init__(
        self,
        conv: nn.Module,
        norm: nn.Module | None = None,
        activation: str = NONE,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if activation not in _ONEDNN:
            raise ValueError(f"activation {activation!r} is unknown; choose one of {', '.join(_ONEDNN)}")
        assert isinstance(conv, nn.Conv2d)
        assert norm is None or isinstance(norm, nn.BatchNorm2d)
        weight, bias = fold_batch_norm(conv, norm)
        self.weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        self.bias = bias.to(dtype)
        assert not isinstance(conv.padding, str), "the networks here pad by numbers"
        self.stride, self.padding, self.dilation = list(conv.stride), list(conv.padding), list(conv.dilation)
        self.groups, self.activation = conv.groups, activation
        self._onednn = weight.device.type == "cpu" and onednn_fuses(dtype)
        self._packed: Tensor | None = None

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Map ``Tensor[N, C, H, W]``, as `nn.Conv2d` does; ``residual`` has the output's shape."""
        if self._onednn:
            return self._fused(x, residual)
        out = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        if residual is not None:
            out += residual
        return self._activate(out)

    def _fused(self, x: Tensor, residual: Tensor | None) -> Tensor:
        """Compute with oneDNN; the layout of the weights is chosen for the first image's size."""
        shape = (self.padding, self.stride, self.dilation, self.groups)
        if self._packed is None:
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *shape, list(x.shape))
        op = torch.ops.mkldnn._convolution_pointwise
        if residual is None:
            alone: Tensor = op(x, self._packed, self.bias, *shape, *_ONEDNN[self.activation], "")
            return alone
        # An activation after the sum is not fused for every type.
        return self._activate(op.binary(x, residual, self._packed, self.bias, *shape, "add", 1.0, None, [], None))

    def _activate(self, x: Tensor) -> Tensor:
        """Apply the activation in place."""
        if self.activation == RELU:
            return x.relu_()
        return x.clamp_(0, 6) if self.activation == RELU6 else x


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor]:
    """Return weight and bias of one convolution that equals ``conv`` followed by ``norm``.

    :raises ValueError: if the norm is in training mode, where it depends on the batch.
    """
    weight = conv.weight.detach()
    bias = torch.zeros_like(weight[:, 0, 0, 0]) if conv.bias is None else conv.bias.detach()
    if norm is None:
        return weight, bias
    if norm.training:
        raise ValueError("the network is in training mode, where batch norm depends on the batch; call eval() first")
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    return weight * factor[:, None, None, None], (bias - norm.running_mean) * factor + norm.bias.detach()


@functools.cache
def onednn_fuses(dtype: torch.dtype) -> bool:
    """Tell whether this torch has oneDNN's fused convolution and computes an example correctly with it.

    It is no public interface: with another version of torch the package may be slower, but not wrong.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    x, residual, weight = (
        torch.randn(shape, generator=generator) for shape in ((1, 8, 5, 5), (1, 8, 5, 5), (8, 8, 3, 3))
    )
    bias = torch.linspace(-1, 1, 8)
    x, residual, weight, bias = (t.to(dtype) for t in (x, residual, weight, bias))
    shape = ([1, 1], [1, 1], [1, 1], 1)
    try:
        op = torch.ops.mkldnn._convolution_pointwise
        packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *shape, [2, 8, 36, 36])  # for another size
        alone = op(x, packed, bias, *shape, "hardtanh", [0.0, 6.0], "")
        added = op.binary(x, residual, packed, bias, *shape, "add", 1.0, None, [], None)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    plain = F.conv2d(x.float(), weight.float(), bias.float(), padding=1)
    rough = 1e-4 if dtype is torch.float32 else 0.2
    return torch.allclose(alone.float(), plain.clamp(0, 6), atol=rough) and torch.allclose(
        added.float(), plain + residual.float(), atol=rough
    )
