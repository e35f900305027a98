# SPDX-License-Identifier: Apache-2.0
"""Reading and writing weights: our safetensors, and the reference implementation's checkpoints.

Safetensors hold numbers and text, nothing that runs. The reference's ``.pth`` files hold pickles, which are read in a
process of their own, see `dimp_ros.model.checkpoints.torch_file`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from dimp_ros.files.inputs import require_regular_file
from dimp_ros.files.outputs import OutputFile, write_bytes, write_error
from dimp_ros.model.checkpoints.reference import parse_checkpoint, reference_state
from dimp_ros.model.checkpoints.state_dict import UNUSED, expected_tensors, mismatch
from dimp_ros.model.checkpoints.torch_file import read_torch_file
from dimp_ros.model.checkpoints.weights_file import (
    BOX_REFINER,
    POINT_BOX,
    TORCH_SUFFIXES,
    UNREADABLE,
    WeightsError,
    WeightsInfo,
    find_weights,
    parse_header,
    unreadable,
)
from dimp_ros.model.dimp import ARCHITECTURES, DimpNet, build_empty_model


class Weights(NamedTuple):
    """A file's content: tensors by key, what is known of them, and of a checkpoint what was left out.

    :param unused: tensors that the tracker does not read. :param other: names of entries that are no tensors.
    """

    tensors: dict[str, Tensor]
    info: WeightsInfo
    unused: dict[str, Tensor]
    other: list[str]


def stored_tensors(model: DimpNet, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Return the tensors that a file keeps of a model, floating-point ones as ``dtype``.

    :raises ValueError: if a value is not finite, a variance negative, or a value too large for ``dtype``.
    """
    state = {key: value.detach().cpu() for key, value in model.state_dict().items() if not UNUSED.match(key)}
    if broken := [key for key, value in state.items() if not torch.isfinite(value).all()]:
        raise ValueError(f"{', '.join(broken)[:500]}: NaN or infinite values; no target can be found with such weights")
    if negative := [key for key, value in state.items() if key.endswith("running_var") and bool((value < 0).any())]:
        raise ValueError(f"{', '.join(negative)[:500]}: negative variances; the network's output would be NaN")
    tensors = {k: v.to(dtype if v.is_floating_point() else v.dtype).contiguous() for k, v in state.items()}
    if overflown := [key for key in tensors if not torch.isfinite(tensors[key]).all()]:
        raise ValueError(f"{', '.join(overflown)}: values beyond the range of {dtype}; store them in float32")
    return tensors


def save_weights(path: str | Path, model: DimpNet, info: WeightsInfo, dtype: torch.dtype = torch.float32) -> None:
    """Write the model's weights and ``info`` as safetensors; floating-point values are stored as ``dtype``."""
    write_bytes(Path(path), weights_content(model, info, dtype))


def weights_content(model: DimpNet, info: WeightsInfo, dtype: torch.dtype = torch.float32) -> bytes:
    """Return the content of the file that `save_weights` writes."""
    return save(stored_tensors(model, dtype), metadata={"dimp_ros": json.dumps(asdict(info))})


def save_reference(
    path: str | Path,
    model: DimpNet,
    info: WeightsInfo,
    dtype: torch.dtype = torch.float32,
    unused: Mapping[str, Tensor] | None = None,
) -> list[str]:
    """Write the model's weights in the layout of the reference's checkpoints; ``info`` goes into an entry ``dimp_ros``.

    The file holds plain containers and tensors only, so that ``torch.load(path, weights_only=True)`` reads it, and has
    PyTorch's layout from before 1.6, which old and new versions read.

    :param unused: where tensors come from that the layout has and the tracker does not read; zeros otherwise.
    :return: the keys that were filled with zeros.
    """
    state, filled = reference_state(stored_tensors(model, dtype), info.architecture, unused)
    plain = json.loads(json.dumps(asdict(info)))
    save_torch(Path(path), {"net": state, "dimp_ros": plain}, _use_new_zipfile_serialization=False)
    return filled


def save_torch(path: Path, content: object, **options: bool) -> None:
    """Write a file of ``torch.save``, whole or not at all.

    :raises WriteFailed: if it cannot be written, such as on a full disk, which torch reports as RuntimeError.
    """
    with OutputFile(path) as partial:
        try:
            torch.save(content, partial, **options)
        except RuntimeError as error:
            raise write_error(path, str(error).splitlines()[0][:200]) from error


def read_weights(path: Path) -> Weights:
    """Read a weights file of either kind; whether the tensors fit is not checked.

    :raises OSError: if it cannot be opened. :raises WeightsError: if it is damaged, no regular file, or has no weights
        of a DiMP network.
    """
    try:
        require_regular_file(path)
        return _read_checkpoint(path) if path.name.endswith(TORCH_SUFFIXES) else _read_safetensors(path)
    except UNREADABLE as error:
        raise unreadable(path, error) from error


def _read_safetensors(path: Path) -> Weights:
    """Read a file of `save_weights`; raise one of `UNREADABLE` if it is none."""
    header = parse_header(path)
    with safe_open(str(path), framework="pt") as content:
        tensors = {key: content.get_tensor(key) for key in header.keys}
    return Weights(tensors, header.info, {}, [])


def _read_checkpoint(path: Path) -> Weights:
    """Read a checkpoint of the reference implementation, or of `save_reference`; raise ValueError if it is none."""
    content = read_torch_file(path)
    checkpoint = parse_checkpoint(content.tensors)
    if content.info:
        info = replace(WeightsInfo.parse(content.info), architecture=checkpoint.architecture)
    else:
        origin = f"not known here: read from {path.name}"
        info = WeightsInfo(checkpoint.architecture, training_data=origin, licence="not known here")
    backbone = build_empty_model(checkpoint.architecture).feature_extractor
    info = replace(info, mean=backbone.mean, std=backbone.std)
    return Weights(checkpoint.tensors, info, checkpoint.unused, sorted(content.entries))


def load_model(model: str) -> tuple[DimpNet, WeightsInfo]:
    """Build a model, by name or by path of its weights, and load its weights in float32, in evaluation mode.

    :raises FileNotFoundError: if there are no weights; :raises ValueError: if they are broken or do not fit.
    """
    path = find_weights(model)
    weights = read_weights(path)
    return fill_model(weights, path), weights.info


def fill_model(weights: Weights, path: Path) -> DimpNet:
    """Build the model that weights read from ``path`` belong to and load them, in evaluation mode.

    :raises WeightsError: naming what is missing, unexpected, or of a wrong shape or type.
    """
    architecture = weights.info.architecture
    if architecture not in ARCHITECTURES:
        raise WeightsError(
            path,
            f"is of a model {architecture!r:.100}, which is not known here, only {', '.join(sorted(ARCHITECTURES))}: "
            "see that file and package are of the same version",
        )
    net = build_empty_model(architecture)
    expected = dict(expected_tensors(architecture))
    parts = {BOX_REFINER: net.add_box_refiner, POINT_BOX: net.add_point_box}
    found = [add for prefix, add in parts.items() if any(key.startswith(prefix) for key in weights.tensors)]
    for add in found:
        add()
    if found:
        expected = {key: value for key, value in net.state_dict().items() if not UNUSED.match(key)}
    problem = mismatch(weights.tensors, expected)
    if problem:
        raise WeightsError(path, f"does not fit {architecture!r}: {problem}")
    own = net.state_dict()
    net.load_state_dict({key: value.to(own[key].dtype) for key, value in weights.tensors.items()}, strict=False)
    return net.eval().requires_grad_(False)
