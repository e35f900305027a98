# SPDX-License-Identifier: Apache-2.0
"""The network for training: frames in, losses out; which parts are trained, in which precision."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dimp_ros.model.backbone import Features
from dimp_ros.model.dimp import DimpNet
from dimp_ros.training.config import TrainingConfig
from dimp_ros.training.losses import Batch, training_losses


class Frames(NamedTuple):
    """Windows of B sequences, first those that train the filter, then those that test it, K together.

    :param maps: each ``[B, K, ...]``: uint8 images; or backbone features of stride 8; or those of stride 8 and 16.
    :param boxes: ``[B, K, 4]`` crop pixels. :param visible: ``[B, K]``.
    """

    maps: tuple[Tensor, ...]
    boxes: Tensor
    visible: Tensor

    def to(self, device: torch.device) -> Frames:
        """Move everything to a device."""
        maps = tuple(m.to(device, non_blocking=True) for m in self.maps)
        return Frames(maps, self.boxes.to(device, non_blocking=True), self.visible.to(device, non_blocking=True))


def early_maps(model: DimpNet, images: Tensor, backbone: str) -> tuple[Tensor, ...]:
    """Return the output of the frozen part of the backbone for images ``uint8 [N, 3, H, W]``."""
    if backbone == "all":
        return (images,)
    extractor = model.feature_extractor
    stride8 = extractor.to_stride8(extractor.normalize(images).contiguous(memory_format=torch.channels_last))
    return (stride8,) if backbone == "late" else (stride8, extractor.to_stride16(stride8))


def late_features(model: DimpNet, maps: tuple[Tensor, ...]) -> Features:
    """Return the backbone's features for maps ``[N, ...]`` as in `Frames`."""
    if len(maps) == 2:
        return Features(maps[0].float(), maps[1].float())
    if maps[0].shape[1] == 3:
        return model.extract(maps[0])
    stride8 = maps[0].float().contiguous(memory_format=torch.channels_last)
    return Features(stride8, model.feature_extractor.to_stride16(stride8))


class TrainingNetwork(nn.Module):
    """Losses of batches of frames, as one module for `DistributedDataParallel`."""

    def __init__(self, model: DimpNet, config: TrainingConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        backbone = model.feature_extractor
        backbone.requires_grad_(config.backbone != "frozen")
        if config.backbone == "late":
            for module in backbone.stride8_modules():
                module.requires_grad_(False)

    def train(self, mode: bool = True) -> TrainingNetwork:
        """Switch to training; the backbone keeps its batch statistics, as do the heads with ``keep_statistics``."""
        super().train(mode)
        self.model.feature_extractor.eval()
        if self.config.keep_statistics:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, frames: Frames, seed: int, classify: bool = True) -> dict[str, Tensor]:
        """Return the losses of frames; proposals are drawn from ``seed``."""
        config = self.config
        if not classify:  # the overlap network uses one reference image
            frames = _with_one_reference(frames, config.train)
        count, total = frames.boxes.shape[:2]
        tested = total - (config.train if classify else 1)
        split = (total - tested, tested)
        device = frames.boxes.device
        half = config.autocast_cpu if device.type == "cpu" else config.autocast
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            whole = late_features(self.model, tuple(m.flatten(0, 1) for m in frames.maps))
            parts = [f.unflatten(0, (count, total)).split(split, 1) for f in whole]
            train, test = (Features(*(part[i].flatten(0, 1) for part in parts)) for i in range(2))
            batch = Batch(
                _last(train),
                frames.boxes[:, : split[0]],
                _last(test),
                frames.boxes[:, split[0] :],
                frames.visible[:, split[0] :],
            )
            generator = torch.Generator().manual_seed(seed)
            return training_losses(
                self.model, batch, config.losses, generator, config.proposals, config.optimizer_steps, classify=classify
            )


def _with_one_reference(frames: Frames, train: int) -> Frames:
    """Keep only the first of the ``train`` training windows."""

    def kept(values: Tensor) -> Tensor:
        return torch.cat((values[:, :1], values[:, train:]), 1)

    return Frames(tuple(kept(m) for m in frames.maps), kept(frames.boxes), kept(frames.visible))


def _last(features: Features) -> Features:
    """Return features in channels-last layout, which is faster."""
    return Features(*(f.contiguous(memory_format=torch.channels_last) for f in features))


def parameter_groups(model: DimpNet, rates: dict[str, float]) -> list[dict[str, object]]:
    """Return the trained parameters with their learning rates, each by the longest matching prefix of its name.

    :raises ValueError: if a trained parameter has no rate, or a rate fits no parameter.
    """
    chosen: dict[str, list[nn.Parameter]] = {prefix: [] for prefix in rates}
    names = [name for name, _ in model.named_parameters()]
    if idle := [prefix for prefix in rates if not any(name.startswith(prefix) for name in names)]:
        raise ValueError(
            f"learning_rates {idle} fit no parameter; names begin like {sorted({n.split('.')[0] for n in names})}"
        )
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        fitting = [prefix for prefix in rates if name.startswith(prefix)]
        if not fitting:
            raise ValueError(f"parameter {name!r} has no learning rate; learning_rates has {sorted(rates)}")
        chosen[max(fitting, key=len)].append(parameter)
    return [
        {"params": parameters, "lr": rates[prefix], "peak": rates[prefix], "name": prefix}
        for prefix, parameters in chosen.items()
        if parameters
    ]
