# SPDX-License-Identifier: Apache-2.0
"""Reading and writing weights: our safetensors, and the reference implementation's checkpoints.

Safetensors hold numbers and text, nothing that runs. The reference's ``.pth`` files hold pickles, which are read
without being run, see `dimp_ros.model.checkpoints.unpickle`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dimp_ros.files.outputs import OutputFile, write_bytes
from dimp_ros.model.checkpoints.reference import UNUSED, expected_tensors, mismatch, parse_checkpoint, reference_state
from dimp_ros.model.checkpoints.torch_file import read_torch_file
from dimp_ros.model.confidence import ConfidenceMap, Knots, read_knots
from dimp_ros.model.dimp import ARCHITECTURES, DimpNet, build_empty_model

WEIGHTS_DIRECTORY = Path(__file__).resolve().parents[2] / "weights"
TORCH_SUFFIXES = (".pth", ".pth.tar", ".pt")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
_LARGEST = 1e6


@dataclass(frozen=True)
class WeightsInfo:
    """What is written in the file beside the weights.

    :param confidence_knots: pairs (score peak, confidence) of the fitted `ConfidenceMap`; empty in older files, whose
        map is logistic: 0.5 at ``confidence_midpoint``, log-odds growing by ``confidence_slope`` per unit of score.
    """

    architecture: str
    crop_size: int = 288
    search_scale: float = 5.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    confidence_midpoint: float = 0.4
    confidence_slope: float = 10.0
    confidence_knots: Knots = ()
    training_data: str = ""
    licence: str = ""
    commit: str = ""
    details: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what is computed with, which may be anything in a file; knots come as lists.

        :raises ValueError: naming the entry, its value and what it must be.
        """
        if not isinstance(self.architecture, str):
            raise ValueError(f"architecture is {self.architecture!r}; it must be the name of a model")
        if type(self.crop_size) is not int:
            raise ValueError(f"crop_size is {self.crop_size!r}; it must be a whole number of pixels")
        for name in ("crop_size", "search_scale", "confidence_midpoint", "confidence_slope"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not abs(value) <= _LARGEST:
                raise ValueError(f"{name} is {value!r}; it must be a number from {-_LARGEST:g} to {_LARGEST:g}")
        object.__setattr__(self, "confidence_knots", read_knots(self.confidence_knots))
        _ = self.confidence  # is none where the slope is 0, for one

    @property
    def confidence(self) -> ConfidenceMap:
        """The map from score peaks to confidences."""
        if self.confidence_knots:
            return ConfidenceMap(self.confidence_knots)
        return ConfidenceMap.logistic(self.confidence_midpoint, self.confidence_slope)

    @classmethod
    def parse(cls, values: Any) -> WeightsInfo:
        """Make it from what `asdict` made of it; raise TypeError or ValueError if that is something else."""
        try:
            values = json.loads(values if isinstance(values, str) else json.dumps(values))
        except RecursionError as error:
            raise ValueError("what is said of the weights is nested too deeply") from error
        return replace(cls(**values), mean=tuple(values.get("mean", ())), std=tuple(values.get("std", ())))


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

    :raises ValueError: if a value is too large for ``dtype``.
    """
    state = {key: value.detach().cpu() for key, value in model.state_dict().items() if not UNUSED.match(key)}
    tensors = {k: v.to(dtype if v.is_floating_point() else v.dtype).contiguous() for k, v in state.items()}
    overflown = [key for key in tensors if torch.isfinite(state[key]).all() and not torch.isfinite(tensors[key]).all()]
    if overflown:
        raise ValueError(f"{', '.join(overflown)}: values beyond the range of {dtype}; store them in float32")
    return tensors


def save_weights(path: str | Path, model: DimpNet, info: WeightsInfo, dtype: torch.dtype = torch.float32) -> None:
    """Write the model's weights and ``info`` as safetensors; floating-point values are stored as ``dtype``."""
    content = save(stored_tensors(model, dtype), metadata={"dimp_ros": json.dumps(asdict(info))})
    write_bytes(Path(path), content)


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
    with OutputFile(Path(path)) as partial:
        torch.save({"net": state, "dimp_ros": plain}, partial, _use_new_zipfile_serialization=False)
    return filled


def find_weights(model: str) -> Path:
    """Return the file of a model given by name or by path.

    :raises ValueError: if ``model`` is neither a name nor the path of a file of a kind that is read.
    :raises FileNotFoundError: if the file is not there; the message says what to do.
    """
    if model in ARCHITECTURES:
        path = WEIGHTS_DIRECTORY / f"{model}.safetensors"
        if not path.is_file():
            shipped = ", ".join(sorted(p.stem for p in WEIGHTS_DIRECTORY.glob("*.safetensors"))) or "none"
            raise FileNotFoundError(
                f"no weights are shipped for {model!r} (shipped: {shipped}); give the path of a .safetensors file "
                "or of a checkpoint of the reference implementation (.pth)"
            )
        return path
    path = Path(model).expanduser()
    if not path.name.endswith(SUFFIXES):
        raise ValueError(
            f"model {model!r} is neither one of {', '.join(sorted(ARCHITECTURES))} "
            f"nor the path of a file that ends in {', '.join(SUFFIXES)}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"weights file {str(path)!r} does not exist; check the path")
    return path


def read_weights(path: Path) -> Weights:
    """Read a weights file of either kind; whether the tensors fit is not checked.

    :raises ValueError: if it is damaged, or has no weights of a DiMP network.
    """
    if path.name.endswith(TORCH_SUFFIXES):
        return _read_checkpoint(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        return Weights(tensors, WeightsInfo.parse(metadata["dimp_ros"]), {}, [])
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(
            f"weights file {str(path)!r} cannot be read ({type(error).__name__}: {error}); "
            "it may be truncated or not of this package: fetch it again"
        ) from error


def _read_checkpoint(path: Path) -> Weights:
    """Read a checkpoint of the reference implementation, or of `save_reference`."""
    content = read_torch_file(path)
    try:
        checkpoint = parse_checkpoint(content)
        info = WeightsInfo(
            checkpoint.architecture, training_data=f"not known here: read from {path.name}", licence="not known here"
        )
        ours = checkpoint.other.pop("dimp_ros", None)
        if ours is not None:
            info = replace(WeightsInfo.parse(ours), architecture=checkpoint.architecture)
    except (TypeError, ValueError) as error:
        raise ValueError(f"checkpoint {str(path)!r} cannot be used: {error}") from error
    backbone = build_empty_model(checkpoint.architecture).feature_extractor
    info = replace(info, mean=backbone.mean, std=backbone.std)
    return Weights(checkpoint.tensors, info, checkpoint.unused, sorted(checkpoint.other))


def load_model(model: str) -> tuple[DimpNet, WeightsInfo]:
    """Build a model, by name or by path of its weights, and load its weights in float32, in evaluation mode.

    :raises FileNotFoundError: if there are no weights; :raises ValueError: if they are broken or do not fit.
    """
    path = find_weights(model)
    weights = read_weights(path)
    return fill_model(weights, path), weights.info


def fill_model(weights: Weights, path: Path) -> DimpNet:
    """Build the model that weights read from ``path`` belong to and load them, in evaluation mode.

    :raises ValueError: naming every key that is missing, unexpected, or of a wrong shape or type.
    """
    if weights.info.architecture not in ARCHITECTURES:
        raise ValueError(
            f"weights file {str(path)!r} is of a model {weights.info.architecture!r}, which is not known here, only "
            f"{', '.join(sorted(ARCHITECTURES))}: see that file and package are of the same version"
        )
    net = build_empty_model(weights.info.architecture)
    problem = mismatch(weights.tensors, expected_tensors(weights.info.architecture))
    if problem:
        raise ValueError(f"weights file {str(path)!r} does not fit {weights.info.architecture!r}: {problem}")
    own = net.state_dict()
    net.load_state_dict({key: value.to(own[key].dtype) for key, value in weights.tensors.items()}, strict=False)
    return net.eval().requires_grad_(False)
