# SPDX-License-Identifier: Apache-2.0
"""Weights files without their tensors: where they are, and what they say about themselves.

Importing this module does not import torch.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from dimp_ros.files.inputs import require_regular_file
from dimp_ros.files.json_file import named_errors, parse_json, parse_object
from dimp_ros.model.confidence import DEFAULT_CONFIDENCE, ConfidenceMap, Knots, read_knots

NAMES = ("dimp18", "dimp50", "dimp_lite")
"""Of the models, see `dimp_ros.model.dimp.ARCHITECTURES`."""
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
    :param confidence_knots: pairs (evidence, confidence) of the fitted `ConfidenceMap`; empty where none was fitted,
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
        """The map from the evidence, see `TrackResult`, to confidences."""
        return ConfidenceMap(self.confidence_knots) if self.confidence_knots else DEFAULT_CONFIDENCE

    @classmethod
    def parse(cls, text: str) -> WeightsInfo:
        """Read it from JSON; entries that are not known are ignored.

        :raises TypeError, ValueError: if it is something else.
        """
        values = parse_json(text)
        if not isinstance(values, dict):
            raise ValueError(f"what is said of the weights is a {type(values).__name__}, not a dict")
        known = {key: value for key, value in values.items() if key in {item.name for item in fields(cls)}}
        return replace(cls(**known), mean=tuple(values.get("mean", ())), std=tuple(values.get("std", ())))


def find_weights(model: str) -> Path:
    """Return the file of a model given by name or by path.

    :raises ValueError: if ``model`` is neither a name nor the path of a file of a kind that is read.
    :raises FileNotFoundError: if the file is not there; the message says what to do.
    """
    if model in NAMES:
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
            f"model {model!r} is neither one of {', '.join(sorted(NAMES))} "
            f"nor the path of a file that ends in {', '.join(SUFFIXES)}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"weights file {str(path)!r} does not exist; check the path")
    return path


def require_safetensors(name: str, path: Path) -> None:
    """Refuse another ending for weights that are written as safetensors: it tells how a file is read.

    :param name: the option or argument as the user knows it. :raises ValueError: with the remedy.
    """
    if path.suffix != ".safetensors":
        raise ValueError(f"{name} {path}: the name of a weights file must end in .safetensors")


class WeightsHeader(NamedTuple):
    """What a safetensors file says about its weights, and the keys of its tensors."""

    info: WeightsInfo
    keys: Sequence[str]

    @property
    def has_box_refiner(self) -> bool:
        """Whether the file has a box refiner."""
        return any(key.startswith(BOX_REFINER) for key in self.keys)

    @property
    def has_point_box(self) -> bool:
        """Whether the file has a head for points."""
        return any(key.startswith(POINT_BOX) for key in self.keys)


def read_header(path: Path) -> WeightsHeader:
    """Read the header of a safetensors file; whether its tensors fit is not checked.

    :raises OSError: if it cannot be opened. :raises WeightsError: if it is damaged, or no regular file.
    """
    try:
        require_regular_file(path)
        return parse_header(path)
    except UNREADABLE as error:
        raise unreadable(path, error) from error


def parse_header(path: Path) -> WeightsHeader:
    """Equal `read_header`, but raise one of `UNREADABLE` if the file is damaged."""
    with path.open("rb") as file:
        start = file.read(8)
    (length,) = struct.unpack("<Q", start) if len(start) == 8 else (0,)
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header has {length} bytes; at most {MAX_HEADER_BYTES} are read")
    with safe_open(str(path), framework="np") as content:
        metadata, keys = content.metadata() or {}, list(content.keys())
    return WeightsHeader(WeightsInfo.parse(metadata["dimp_ros"]), keys)


def with_knots(content: bytes, knots: Knots) -> bytes:
    """Return the content of a safetensors file with other `WeightsInfo.confidence_knots`; all else stays bit for bit.

    :raises ValueError: if the file is of another kind, or its header would be too long to be read.
    """
    with named_errors("the header", "write it again with dimp-convert", struct.error):
        (length,) = struct.unpack_from("<Q", content)
        header = parse_object(content[8 : 8 + length])
        metadata = header["__metadata__"]
        metadata["dimp_ros"] = json.dumps({**parse_object(metadata["dimp_ros"]), "confidence_knots": knots})
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)  # numbers are aligned to 8 bytes
        if len(text) > MAX_HEADER_BYTES:
            raise ValueError(f"with the map it has {len(text)} bytes; at most {MAX_HEADER_BYTES} are read")
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


UNREADABLE = (SafetensorError, KeyError, TypeError, ValueError)
"""What reading a damaged file raises."""


def unreadable(path: Path, error: Exception) -> WeightsError:
    """Return the error for a damaged file."""
    kind = type(error).__name__
    return WeightsError(
        path, f"cannot be read ({kind}: {error}); it may be truncated or of another program: fetch it again"
    )
