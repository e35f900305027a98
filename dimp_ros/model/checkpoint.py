# SPDX-License-Identifier: Apache-2.0
"""Reading and writing weights as safetensors, with what one must know of them beside them.

Only safetensors are read: they hold numbers and text, nothing that runs.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dimp_ros.model.confidence import ConfidenceMap, Knots, read_knots
from dimp_ros.model.dimp import ARCHITECTURES, DimpNet, build_model

WEIGHTS_DIRECTORY = Path(__file__).resolve().parent.parent / "weights"


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
        """Check the knots, which come from a file as lists."""
        object.__setattr__(self, "confidence_knots", read_knots(self.confidence_knots))

    @property
    def confidence(self) -> ConfidenceMap:
        """The map from score peaks to confidences."""
        if self.confidence_knots:
            return ConfidenceMap(self.confidence_knots)
        return ConfidenceMap.logistic(self.confidence_midpoint, self.confidence_slope)


def save_weights(path: str | Path, model: DimpNet, info: WeightsInfo, dtype: torch.dtype = torch.float32) -> None:
    """Write the model's weights and ``info`` as safetensors; floating-point values are stored as ``dtype``."""
    tensors = {
        key: value.detach().cpu().to(dtype if value.is_floating_point() else value.dtype).contiguous()
        for key, value in model.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    save_file(tensors, str(path), metadata={"dimp_ros": json.dumps(asdict(info))})


def find_weights(model: str) -> Path:
    """Return the file of a model given by name or by path.

    :raises ValueError: if ``model`` is neither a name nor a safetensors path.
    :raises FileNotFoundError: if the file is not there; the message says what to do.
    """
    if model in ARCHITECTURES:
        path = WEIGHTS_DIRECTORY / f"{model}.safetensors"
        if not path.is_file():
            shipped = ", ".join(sorted(p.stem for p in WEIGHTS_DIRECTORY.glob("*.safetensors"))) or "none"
            raise FileNotFoundError(
                f"no weights are shipped for {model!r} (shipped: {shipped}); give the path of a .safetensors file"
            )
        return path
    path = Path(model).expanduser()
    if path.suffix != ".safetensors":
        raise ValueError(
            f"model {model!r} is neither one of {', '.join(sorted(ARCHITECTURES))} nor the path of a .safetensors file"
        )
    if not path.is_file():
        raise FileNotFoundError(f"weights file {str(path)!r} does not exist; check the path")
    return path


def load_model(model: str) -> tuple[DimpNet, WeightsInfo]:
    """Build a model, by name or by path of its weights, and load its weights in float32, in evaluation mode.

    :raises FileNotFoundError: if there are no weights; :raises ValueError: if they are broken or do not fit.
    """
    path = find_weights(model)
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        info = WeightsInfo(**json.loads(metadata["dimp_ros"]))
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(
            f"weights file {str(path)!r} cannot be read ({type(error).__name__}: {error}); "
            "it may be truncated or not of this package: fetch it again"
        ) from error
    net = build_model(info.architecture)
    expected = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    missing, unexpected = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    misshapen = [
        f"{key} is {list(tensors[key].shape)}, not {list(expected[key].shape)}"
        for key in sorted(expected.keys() & tensors.keys())
        if tensors[key].shape != expected[key].shape
    ]
    if missing or unexpected or misshapen:
        raise ValueError(
            f"weights file {str(path)!r} does not fit {info.architecture!r}: "
            f"missing {missing}, unexpected {unexpected}, wrong shape {misshapen}"
        )
    net.load_state_dict({key: value.to(expected[key].dtype) for key, value in tensors.items()}, strict=False)
    return net.eval().requires_grad_(False), info
