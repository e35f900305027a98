# SPDX-License-Identifier: Apache-2.0
"""A checkpoint as the reference implementation writes it: its keys and shapes spelled out, its classes not to be found.

The keys are written from the specification and not taken from our modules, so that tests can compare the two.
"""

from __future__ import annotations

import math
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BASIC, BOTTLENECK = (2, 2, 2, 2), (3, 4, 6, 3)


def _norm(state: dict[str, tuple[int, ...]], name: str, channels: int) -> None:
    for suffix in ("weight", "bias", "running_mean", "running_var"):
        state[f"{name}.{suffix}"] = (channels,)
    state[f"{name}.num_batches_tracked"] = ()


def _block(state: dict[str, tuple[int, ...]], name: str, inputs: int, planes: int, *, bottleneck: bool) -> None:
    if bottleneck:
        shapes = [(planes, inputs, 1, 1), (planes, planes, 3, 3), (4 * planes, planes, 1, 1)]
    else:
        shapes = [(planes, inputs, 3, 3), (planes, planes, 3, 3)]
    for index, shape in enumerate(shapes, start=1):
        state[f"{name}.conv{index}.weight"] = shape
        _norm(state, f"{name}.bn{index}", shape[0])


def _backbone(state: dict[str, tuple[int, ...]], *, bottleneck: bool) -> None:
    state["feature_extractor.conv1.weight"] = (64, 3, 7, 7)
    _norm(state, "feature_extractor.bn1", 64)
    expansion, inputs = (4 if bottleneck else 1), 64
    for stage, (planes, depth) in enumerate(zip((64, 128, 256, 512), BOTTLENECK if bottleneck else BASIC, strict=True)):
        for index in range(depth):
            name = f"feature_extractor.layer{stage + 1}.{index}"
            _block(state, name, inputs, planes, bottleneck=bottleneck)
            if index == 0 and (stage > 0 or bottleneck):
                state[f"{name}.downsample.0.weight"] = (planes * expansion, inputs, 1, 1)
                _norm(state, f"{name}.downsample.1", planes * expansion)
            inputs = planes * expansion
    state["feature_extractor.fc.weight"], state["feature_extractor.fc.bias"] = (1000, inputs), (1000,)


def reference_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Return every key of a checkpoint of ``dimp18`` or ``dimp50`` with its shape."""
    state: dict[str, tuple[int, ...]] = {}
    bottleneck = name == "dimp50"
    _backbone(state, bottleneck=bottleneck)
    filters = 512 if bottleneck else 256
    prefix = "classifier.filter_initializer.filter_conv"
    state[f"{prefix}.weight"], state[f"{prefix}.bias"] = (filters, filters, 3, 3), (filters,)
    prefix = "classifier.filter_optimizer"
    state[f"{prefix}.log_step_length"], state[f"{prefix}.filter_reg"] = (1,), (1,)
    for part in ("label_map_predictor", "target_mask_predictor.0", "spatial_weight_predictor"):
        state[f"{prefix}.{part}.weight"] = (1, 100, 1, 1)
    if bottleneck:
        state["classifier.feature_extractor.0.weight"] = (512, 1024, 3, 3)
    else:
        _block(state, "classifier.feature_extractor.0", 256, 256, bottleneck=False)
        state["classifier.feature_extractor.1.weight"] = (256, 256, 3, 3)
    stride8, stride16 = (512, 1024) if bottleneck else (128, 256)
    convolutions = {
        "conv3_1r": (128, stride8, 3),
        "conv3_1t": (256, stride8, 3),
        "conv3_2t": (256, 256, 3),
        "fc3_1r": (256, 128, 3),
        "conv4_1r": (256, stride16, 3),
        "conv4_1t": (256, stride16, 3),
        "conv4_2t": (256, 256, 3),
        "fc34_3r": (256, 512, 1),
        "fc34_4r": (256, 512, 1),
    }
    for part, (outputs, inputs, kernel) in convolutions.items():
        state[f"bb_regressor.{part}.0.weight"] = (outputs, inputs, kernel, kernel)
        state[f"bb_regressor.{part}.0.bias"] = (outputs,)
        _norm(state, f"bb_regressor.{part}.1", outputs)
    for part, kernel in (("fc3_rt", 5), ("fc4_rt", 3)):
        state[f"bb_regressor.{part}.linear.weight"] = (256, 256 * kernel * kernel)
        state[f"bb_regressor.{part}.linear.bias"] = (256,)
        _norm(state, f"bb_regressor.{part}.bn", 256)
    state["bb_regressor.iou_predictor.weight"], state["bb_regressor.iou_predictor.bias"] = (1, 512), (1,)
    return state


def _value(key: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw weights that keep the signal's size from layer to layer; the optimiser's are the specified initial ones."""
    distance = torch.arange(100) * 0.1
    gaussian = torch.exp(-0.5 * (distance / 0.9) ** 2)
    fixed = {
        "log_step_length": torch.tensor([math.log(0.9)]),
        "filter_reg": torch.tensor([0.1]),
        "label_map_predictor.weight": gaussian - gaussian[-1],
        "target_mask_predictor.0.weight": 3 * torch.tanh(2 - distance),
        "spatial_weight_predictor.weight": torch.ones(100),
    }
    for suffix, value in fixed.items():
        if key == f"classifier.filter_optimizer.{suffix}":
            return value.view(shape)
    if key.endswith("num_batches_tracked"):
        return torch.tensor(1234)
    if key.endswith("running_var") or (len(shape) == 1 and key.endswith("weight")):
        return 0.5 + torch.rand(shape, generator=generator)
    if len(shape) == 1:
        return 0.1 * torch.randn(shape, generator=generator)
    fan_in = math.prod(shape[1:])
    return torch.randn(shape, generator=generator) * math.sqrt(1 / fan_in)


def reference_state(name: str, seed: int = 0) -> OrderedDict[str, Tensor]:
    """Return random tensors under the reference's keys."""
    generator = torch.Generator().manual_seed(seed)
    return OrderedDict((key, _value(key, shape, generator)) for key, shape in reference_shapes(name).items())


def write_reference_checkpoint(
    path: Path, name: str, *, legacy: bool = True, seed: int = 0
) -> OrderedDict[str, Tensor]:
    """Write a checkpoint with entries of classes that nobody can import when it is read; return its tensors."""
    state = reference_state(name, seed)
    module = types.ModuleType("absent_training_code")

    def dimpnet(**_: Any) -> None:
        """Stand in for the function that builds a network."""

    dimpnet.__module__, dimpnet.__qualname__ = module.__name__, "dimpnet"
    constructor = type("NetConstructor", (), {"__module__": module.__name__, "__qualname__": "NetConstructor"})
    meter = type("StatValue", (list,), {"__module__": module.__name__, "__qualname__": "StatValue"})
    module.dimpnet, module.NetConstructor, module.StatValue = dimpnet, constructor, meter  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    try:
        made, values = constructor(), meter([0.5, 0.25])
        made.fun, made.args, made.kwds = dimpnet, (), {"filter_size": 4, "backbone_pretrained": True}
        values.clip = 30.0  # type: ignore[attr-defined]
        content = {
            "epoch": 50,
            "actor_type": "DiMPActor",
            "net_type": "DiMPnet",
            "net": state,
            "net_info": {"made_by": made, "version": None},
            "constructor": made,
            "optimizer": {"state": {}, "param_groups": [{"lr": 2e-4, "params": [140, 141]}]},
            "stats": OrderedDict(train={"Loss/total": values}, val={}),
            "use_gpu": True,
        }
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    finally:
        del sys.modules[module.__name__]
    return state
