# SPDX-License-Identifier: Apache-2.0
"""The tensors that a model needs, by key, and how those of a file differ from them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from dimp_ros.model.dimp import build_empty_model

UNUSED = re.compile(r"feature_extractor\.(?:layer4|fc)\.|(?:.*\.)?num_batches_tracked$")
"""Keys that a file may have and the tracker does not read: ResNet's end, and counters of training."""

MAX_LISTED = 20


@functools.cache
def expected_tensors(architecture: str) -> Mapping[str, Tensor]:
    """Return the tensors of a model, by key: shapes and types, each with a single number in memory."""
    state = build_empty_model(architecture).state_dict()
    return {key: value.new_zeros(()).expand(value.shape) for key, value in state.items() if not UNUSED.match(key)}


def mismatch(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Return in what tensors differ from those expected, empty if they fit; of many keys the first `MAX_LISTED`."""
    missing, unexpected = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    common = [(key, tensors[key], expected[key]) for key in sorted(expected.keys() & tensors.keys())]
    misshapen = [(key, list(got.shape), list(want.shape)) for key, got, want in common if got.shape != want.shape]
    parts = {
        "missing": missing,
        "unexpected": unexpected,
        "wrong shape": [f"{key} is {got}, not {want}" for key, got, want in misshapen],
        "wrong type": [
            f"{key} is {got.dtype}, not {want.dtype}"
            for key, got, want in common
            if got.is_floating_point() != want.is_floating_point()
        ],
    }
    return "; ".join(f"{len(keys)} {name}: {listed(keys)}" for name, keys in parts.items() if keys)


def summary(keys: Iterable[str]) -> str:
    """Return keys in one line, those of ResNet's end and the counters by their number."""
    counts: dict[str, int] = {}
    for key in keys:
        match = re.match(r"feature_extractor\.(?:layer4|fc)(?=\.)", key)
        name = match[0] if match else "num_batches_tracked" if key.endswith("num_batches_tracked") else key
        counts[name] = counts.get(name, 0) + 1
    return listed(f"{name} ({count})" if count > 1 else name for name, count in counts.items()) or "nothing"


def listed(keys: Iterable[str]) -> str:
    """Return the first `MAX_LISTED` keys with commas, shortened, anything unprintable in them escaped."""
    every = list(keys)
    more = [f"... and {len(every) - MAX_LISTED} more"] if len(every) > MAX_LISTED else []
    return ", ".join([*(ascii(key[:120])[1:-1] for key in every[:MAX_LISTED]), *more])
