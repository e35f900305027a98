# SPDX-License-Identifier: Apache-2.0
"""The layout of the reference implementation's checkpoints: reading it, and completing our weights to it.

Its keys are those of our modules, plus some that the tracker does not read: `UNUSED`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dimp_ros.model.backbone import BasicBlock, Bottleneck, ResNet, residual_stage
from dimp_ros.model.checkpoints.state_dict import UNUSED, expected_tensors, listed
from dimp_ros.model.dimp import ARCHITECTURES, build_empty_model


class Checkpoint(NamedTuple):
    """What was found in a checkpoint.

    :param architecture: the model it fits best. :param tensors: by key, without the unused ones.
    :param unused: those left out.
    """

    architecture: str
    tensors: dict[str, Tensor]
    unused: dict[str, Tensor]


def parse_checkpoint(state: Mapping[str, Tensor]) -> Checkpoint:
    """Find out which model a checkpoint's tensors belong to: the one that fits most keys and shapes.

    Whether all fit is for `mismatch` to tell.

    :raises ValueError: if none is of a DiMP network.
    """
    scores = {
        name: sum(key in state and state[key].shape == value.shape for key, value in expected_tensors(name).items())
        for name in ARCHITECTURES
    }
    best = max(scores, key=lambda name: scores[name])
    if not scores[best]:
        raise ValueError(
            f"none of its {len(state)} tensors ({listed(list(state)[:4])} ...) belongs to one of "
            f"{', '.join(sorted(ARCHITECTURES))}; a backbone alone is no tracker, but training can start from it"
        )
    unused = {key: value for key, value in state.items() if UNUSED.match(key)}
    return Checkpoint(best, {key: value for key, value in state.items() if key not in unused}, unused)


def reference_state(
    tensors: Mapping[str, Tensor], architecture: str, unused: Mapping[str, Tensor] | None = None
) -> tuple[OrderedDict[str, Tensor], list[str]]:
    """Complete a model's tensors to the keys that a checkpoint of the reference has.

    Parts that the reference does not have, a box refiner or a head for points, follow under their own keys.

    :param unused: where the keys that the tracker does not read are taken from, as `parse_checkpoint` returned them.
        Others are zeros of the right shape, kept as one number.
    :return: all tensors, and the keys that were filled with zeros.
    """
    model = build_empty_model(architecture)
    if isinstance(model.feature_extractor, ResNet):
        _add_end(model.feature_extractor)
    complete: OrderedDict[str, Tensor] = OrderedDict()
    filled = []
    for key, empty in model.state_dict().items():
        if key in tensors:
            complete[key] = tensors[key]
        elif unused is not None and key in unused:
            complete[key] = unused[key]
        else:
            complete[key] = torch.zeros((), dtype=empty.dtype).expand(empty.shape)
            filled.append(key)
    complete.update((key, value) for key, value in tensors.items() if key not in complete)
    return complete, filled


def _add_end(backbone: ResNet) -> None:
    """Add the last stage and the ImageNet classifier, with which a ResNet is published."""
    inputs = backbone.channels[1]
    block, depth = (BasicBlock, 2) if isinstance(backbone.layer3[0], BasicBlock) else (Bottleneck, 3)
    backbone.add_module("layer4", residual_stage(block, inputs, 512, depth, stride=2))
    backbone.add_module("fc", nn.Linear(2 * inputs, 1000))
