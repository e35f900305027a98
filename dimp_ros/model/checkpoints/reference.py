# SPDX-License-Identifier: Apache-2.0
"""The reference implementation's checkpoints: what is in them, and the same layout for our own weights.

Such a file is a pickled dict. Its ``net`` entry holds the network's tensors, under the key names that our modules have
too, plus some that nothing is computed with. The other entries are objects of classes that are not installed here.
"""

from __future__ import annotations

import functools
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dimp_ros.model.backbone import BasicBlock, Bottleneck, ResNet, residual_stage
from dimp_ros.model.checkpoints.unpickle import Foreign
from dimp_ros.model.dimp import ARCHITECTURES, build_empty_model

UNUSED = re.compile(r"feature_extractor\.(?:layer4|fc)\.|(?:.*\.)?num_batches_tracked$")
"""Keys that a checkpoint may have and the tracker does not read: ResNet's end, and counters of training."""


class Checkpoint(NamedTuple):
    """What was found in a checkpoint.

    :param architecture: the model it fits best. :param tensors: by key, without the unused ones.
    :param unused: those left out. :param other: the entries beside ``net``.
    """

    architecture: str
    tensors: dict[str, Tensor]
    unused: dict[str, Tensor]
    other: dict[str, Any]


@functools.cache
def expected_tensors(architecture: str) -> Mapping[str, Tensor]:
    """Return the tensors that a model is made of, by key: shapes and types, each with a single number in memory."""
    state = build_empty_model(architecture).state_dict()
    return {key: value.new_zeros(()).expand(value.shape) for key, value in state.items() if not UNUSED.match(key)}


def parse_checkpoint(content: Any) -> Checkpoint:
    """Find the network's tensors in what a checkpoint holds: a dict with an entry ``net``, or the tensors themselves.

    The architecture is the one that most keys and shapes belong to; whether all do is for `mismatch` to tell.

    :raises ValueError: if there are no tensors, or none of a DiMP network.
    """
    if not isinstance(content, dict):
        raise ValueError(f"it holds {_kind(content)}, not a dict with an entry 'net', nor a dict of tensors")
    state = content.get("net", content)
    other = {str(key): value for key, value in content.items() if key != "net"} if "net" in content else {}
    if not isinstance(state, dict):
        raise ValueError(f"its entry 'net' is {_kind(state)}, not a dict of tensors")
    wrong = [str(key)[:80] for key, value in state.items() if not isinstance(value, Tensor) or not isinstance(key, str)]
    if {"average", "optimizer", "model"} <= content.keys():
        raise ValueError("it is the checkpoint of a training run; take weights.safetensors from the same folder")
    if wrong or not state:
        raise ValueError(f"its tensors are none: {listed(wrong) or 'it is empty'}")
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
    return Checkpoint(best, {key: value for key, value in state.items() if key not in unused}, unused, other)


def mismatch(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Return everything in which tensors differ from those expected, empty if they fit."""
    missing, unexpected = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    misshapen = [
        f"{key} is {list(tensors[key].shape)}, not {list(expected[key].shape)}"
        for key in sorted(expected.keys() & tensors.keys())
        if tensors[key].shape != expected[key].shape
    ]
    mistyped = [
        f"{key} is {tensors[key].dtype}, not {expected[key].dtype}"
        for key in sorted(expected.keys() & tensors.keys())
        if tensors[key].is_floating_point() != expected[key].is_floating_point()
    ]
    parts = {"missing": missing, "unexpected": unexpected, "wrong shape": misshapen, "wrong type": mistyped}
    return "; ".join(f"{len(keys)} {name}: {listed(keys)}" for name, keys in parts.items() if keys)


def reference_state(
    tensors: Mapping[str, Tensor], architecture: str, unused: Mapping[str, Tensor] | None = None
) -> tuple[OrderedDict[str, Tensor], list[str]]:
    """Complete a model's tensors to the keys that a checkpoint of the reference has.

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
    return complete, filled


def _add_end(backbone: ResNet) -> None:
    """Add the last stage and the ImageNet classifier, with which a ResNet is published."""
    inputs = backbone.channels[1]
    block, depth = (BasicBlock, 2) if isinstance(backbone.layer3[0], BasicBlock) else (Bottleneck, 3)
    backbone.add_module("layer4", residual_stage(block, inputs, 512, depth, stride=2))
    backbone.add_module("fc", nn.Linear(2 * inputs, 1000))


def summary(keys: Iterable[str]) -> str:
    """Return keys in one line, those of ResNet's end and the counters by their number."""
    counts: dict[str, int] = {}
    for key in keys:
        match = re.match(r"feature_extractor\.(?:layer4|fc)(?=\.)", key)
        name = match[0] if match else "num_batches_tracked" if key.endswith("num_batches_tracked") else key
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{name} ({count})" if count > 1 else name for name, count in counts.items()) or "nothing"


def listed(keys: Iterable[str]) -> str:
    """Return keys with commas, anything unprintable in them escaped."""
    return ", ".join(ascii(key)[1:-1] for key in keys)


def _kind(value: Any) -> str:
    """Say what a value is, without asking the value."""
    return f"an object of {ascii(value.name)[1:81]}" if isinstance(value, Foreign) else f"a {type(value).__name__}"
