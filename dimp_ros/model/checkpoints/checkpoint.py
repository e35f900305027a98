# SPDX-License-Identifier: Apache-2.0
"""Reading and writing weights: our safetensors, and the reference implementation's checkpoints.

Safetensors hold numbers and text, nothing that runs. The reference's ``.pth`` files hold pickles, which are read in a
process of their own, see `dimp_ros.model.checkpoints.torch_file`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dimp_ros.files.inputs import require_regular_file
from dimp_ros.files.outputs import OutputFile, write_bytes, write_error
from dimp_ros.model.checkpoints.reference import parse_checkpoint, reference_state
from dimp_ros.model.checkpoints.state_dict import UNUSED, expected_tensors, mismatch
from dimp_ros.model.checkpoints.torch_file import read_torch_file
from dimp_ros.model.confidence import DEFAULT_CONFIDENCE, ConfidenceMap, Knots, read_knots
from dimp_ros.model.dimp import ARCHITECTURES, DimpNet, build_empty_model

WEIGHTS_DIRECTORY = Path(__file__).resolve().parents[2] / "weights"
TORCH_SUFFIXES = (".pth", ".pth.tar", ".pt")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
MAX_HEADER_BYTES = 2**20
"""Of a safetensors file; that of ``dimp50`` has 40 kB."""
MAX_MESSAGE = 900
BOX_REFINER, POINT_BOX = "box_refiner.", "point_box."
"""Prefixes of the tensors of a box refiner and of a head for points, which a file may have beside the model's."""
_LARGEST = 1e6


class WeightsError(ValueError):
    """A weights file cannot be used; the text has at most 1,000 characters, whatever the file says."""

    def __init__(self, path: Path, text: str) -> None:
        name = str(path) if len(str(path)) <= 300 else f"...{str(path)[-300:]}"
        text = f"weights file {name!r} {text}"
        super().__init__(text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]} ...")


@dataclass(frozen=True)
class WeightsInfo:
    """What a file says about its weights.

    :param tracker: settings of the tracker with which the weights work best, by the names of `TrackerConfig`.
    :param confidence_knots: pairs (score peak, confidence) of the fitted `ConfidenceMap`; empty where none was fitted,
        `DEFAULT_CONFIDENCE` is used then.
    """

    architecture: str
    crop_size: int = 288
    search_scale: float = 5.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    confidence_knots: Knots = ()
    training_data: str = ""
    licence: str = ""
    commit: str = ""
    details: dict[str, object] = field(default_factory=dict)
    tracker: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what is computed with, which may be anything in a file; knots come as lists.

        :raises ValueError: naming the entry, its value and what it must be.
        """
        if not isinstance(self.architecture, str):
            raise ValueError(f"architecture is {self.architecture!r}; it must be the name of a model")
        if type(self.crop_size) is not int:
            raise ValueError(f"crop_size is {self.crop_size!r}; it must be a whole number of pixels")
        for name in ("crop_size", "search_scale"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not abs(value) <= _LARGEST:
                raise ValueError(f"{name} is {value!r}; it must be a number from {-_LARGEST:g} to {_LARGEST:g}")
        if not isinstance(self.tracker, dict) or not all(
            isinstance(key, str) and type(value) in (int, float, bool) for key, value in self.tracker.items()
        ):
            raise ValueError(f"tracker is {self.tracker!r:.200}; it must be a mapping of names to numbers")
        object.__setattr__(self, "confidence_knots", read_knots(self.confidence_knots))

    @property
    def confidence(self) -> ConfidenceMap:
        """The map from score peaks to confidences."""
        return ConfidenceMap(self.confidence_knots) if self.confidence_knots else DEFAULT_CONFIDENCE

    @classmethod
    def parse(cls, text: str) -> WeightsInfo:
        """Read it from JSON; entries that are not known are ignored.

        :raises TypeError, ValueError: if it is something else.
        """
        try:
            values = json.loads(text)
        except RecursionError as error:
            raise ValueError("what is said of the weights is nested too deeply") from error
        if not isinstance(values, dict):
            raise ValueError(f"what is said of the weights is a {type(values).__name__}, not a dict")
        known = {key: value for key, value in values.items() if key in {item.name for item in fields(cls)}}
        return replace(cls(**known), mean=tuple(values.get("mean", ())), std=tuple(values.get("std", ())))


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

    :raises OSError: if it cannot be opened. :raises WeightsError: if it is damaged, no regular file, or has no weights
        of a DiMP network.
    """
    try:
        require_regular_file(path)
        return _read_checkpoint(path) if path.name.endswith(TORCH_SUFFIXES) else _read_safetensors(path)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        kind = type(error).__name__
        text = f"cannot be read ({kind}: {error}); it may be truncated or of another program: fetch it again"
        raise WeightsError(path, text) from error


def _read_safetensors(path: Path) -> Weights:
    """Read a file of `save_weights`; raise SafetensorError, KeyError, TypeError or ValueError if it is none."""
    with path.open("rb") as file:
        start = file.read(8)
    (length,) = struct.unpack("<Q", start) if len(start) == 8 else (0,)
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header has {length} bytes; at most {MAX_HEADER_BYTES} are read")
    with safe_open(str(path), framework="pt") as content:
        metadata = content.metadata() or {}
        tensors = {key: content.get_tensor(key) for key in content.keys()}
    return Weights(tensors, WeightsInfo.parse(metadata["dimp_ros"]), {}, [])


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
