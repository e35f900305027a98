# SPDX-License-Identifier: Apache-2.0
"""The optimiser of the box refiner: steps, examples that are used several times, averaged weights, checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dimp_ros.files.json_file import named_errors
from dimp_ros.files.outputs import append_line
from dimp_ros.model.box_refiner import RefinedBoxes, box_losses
from dimp_ros.model.checkpoints.checkpoint import load_model, save_torch, save_weights
from dimp_ros.model.checkpoints.network_source import tensors_digest
from dimp_ros.training.box_pairs import PairBatch
from dimp_ros.training.refiner_network import RefinerTraining, to_images
from dimp_ros.training.run_log import REMEDY, read_state

CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"


@dataclass(frozen=True)
class BoxRefinerSettings:
    """Of a run.

    :param references: in a step. :param searches: search windows for each. :param learning_rate: of the head; the
        backbone from stride 4 on learns with ``backbone_rate`` times as much.
    :param uses: how often the features of a batch are used.
    :param ema: decay of the average of the weights.
    """

    references: int = 16
    searches: int = 2
    uses: int = 4
    learning_rate: float = 1e-3
    backbone_rate: float = 0.3
    warm_up: int = 100
    ema: float = 0.998
    clip_norm: float = 5.0
    validate_every: int = 500
    seed: int = 0


class BoxRefinerTrainer:
    """A refiner, its optimiser and the average of its weights, kept in ``folder``.

    :param start: name or path of the weights that a new run begins with, see `_beginning`.
    :raises ValueError: if the run that is there did not begin with ``start``, or its checkpoint is damaged.
    """

    def __init__(self, folder: Path, settings: BoxRefinerSettings, start: str | None = None) -> None:
        self.folder, self.settings = folder, settings
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(settings.seed)
        self.net = RefinerTraining().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average: dict[str, Tensor] = {}
        self.step = 0
        self._checkpoint = folder / CHECKPOINT
        self._start: str | None = None
        resumed = self._checkpoint.is_file()
        if resumed:
            state = read_state(self._checkpoint)
            self._start = state.get("start")  # earlier versions did not keep it
            with named_errors(self._checkpoint, REMEDY, KeyError, RuntimeError):
                self.net.load_state_dict(state["net"])
                self.average, self.step = state["average"], state["step"]
            if start is not None and self._start is not None and tensors_digest(_beginning(start)[1]) != self._start:
                raise ValueError(
                    f"{folder} holds a run that did not begin with --start {start}; leave --start out to resume it, "
                    "or give another --folder"
                )
        elif start is not None:
            part, tensors = _beginning(start)
            self.net.get_submodule(part).load_state_dict(tensors)
            self._start = tensors_digest(tensors)
        layers = [p for p in self.net.backbone.parameters() if p.requires_grad]
        head = [p for name, p in self.net.named_parameters() if not name.startswith("backbone.")]
        groups = [{"params": head, "rate": 1.0}, {"params": layers, "rate": settings.backbone_rate}]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=1e-4)
        if resumed:
            self.optimizer.load_state_dict(state["optimizer"])

    def train(self, batch: PairBatch | Example, factor: float = 1.0) -> dict[str, float]:
        """Make one step; ``factor`` scales the learning rate."""
        settings = self.settings
        self.net.train()
        warm = min(1.0, (self.step + 1) / settings.warm_up)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * group["rate"] * warm * factor
        example = extract(self.net, batch) if isinstance(batch, PairBatch) else batch
        losses = box_losses(refine_example(self.net, example), example.edges)
        total = 2 * losses["distance"] + losses["overlap"] + 0.3 * losses["quality"]
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), settings.clip_norm)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.step += 1
        self._update_average()
        return {**{name: float(value.detach()) for name, value in losses.items()}, "norm": float(norm)}

    def examples(self, batches: Iterator[PairBatch], kept: int = 200) -> Iterator[PairBatch | Example]:
        """Yield what to train on: every batch's features of stride 4 are used ``uses`` times, spread out."""
        bank: list[Example] = []
        rng = np.random.default_rng(self.settings.seed + self.step)
        for batch in batches:
            with torch.inference_mode():
                new = extract(self.net, batch)
            bank.append(Example(*(part.clone() for part in new)))  # copies that autograd may use
            yield bank[-1]
            for _ in range(self.settings.uses - 1):
                yield bank[rng.integers(len(bank))]
            if len(bank) >= kept:
                bank.pop(int(rng.integers(len(bank))))

    def _update_average(self) -> None:
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        for key, value in self.net.state_dict().items():
            if key not in self.average or not value.is_floating_point():
                self.average[key] = value.clone()
            else:
                self.average[key].lerp_(value, 1 - decay)

    def averaged(self) -> RefinerTraining:
        """Return a refiner with the average of the weights, in evaluation mode.

        :raises ValueError: before the first step, with the remedy.
        """
        if not self.step:
            raise ValueError(f"the run in {self.folder} has taken no step yet; train it for more --minutes")
        net = RefinerTraining().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        net.load_state_dict(self.average)
        averaged: RefinerTraining = net.eval()
        return averaged

    def save(self) -> None:
        """Write the checkpoint, once a step has been taken: whole or not at all."""
        if not self.step:
            return
        state = {
            "net": self.net.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "start": self._start,
        }
        save_torch(self._checkpoint, state)

    def log(self, **values: object) -> None:
        """Add a line to ``log.jsonl``."""
        append_line(self.folder / LOG, json.dumps({"step": self.step, **values}))


def _beginning(model: str) -> tuple[str, dict[str, Tensor]]:
    """Return what a run begins with and its part of `RefinerTraining`: a model's refiner; its backbone without one."""
    net, _ = load_model(model)
    if net.box_refiner is not None:
        return "", net.box_refiner.state_dict()
    return "backbone", net.feature_extractor.state_dict()


def export(trainer: BoxRefinerTrainer, base: str, path: Path) -> None:
    """Write the weights of ``base`` with the averaged box refiner, in half precision, without a map to confidences."""
    net, info = load_model(base)
    net.add_box_refiner()
    assert net.box_refiner is not None
    net.box_refiner.load_state_dict(trainer.averaged().state_dict())
    details = {**info.details, "box_refiner_steps": trainer.step}
    save_weights(path, net.eval(), replace(info, details=details, confidence_knots=()), torch.float16)


class Example(NamedTuple):
    """A `PairBatch` as features of stride 4, in half precision."""

    references: Tensor
    boxes: Tensor
    searches: Tensor
    edges: Tensor


def extract(net: RefinerTraining, batch: PairBatch) -> Example:
    """Compute a batch's features in half precision."""
    count = len(batch.boxes)
    with torch.autocast("cpu", torch.bfloat16):
        features = net.to_stride4(to_images(np.concatenate((batch.references, batch.searches))))
    return Example(
        features[:count],
        torch.from_numpy(batch.boxes),
        features[count:],
        torch.from_numpy(batch.edges),
    )


def refine_example(net: RefinerTraining, example: Example) -> RefinedBoxes:
    """Refine the boxes of an example."""
    references, searches = (net.to_features(maps.float()) for maps in (example.references, example.searches))
    tokens = net.tokens(references, example.boxes)
    refined: RefinedBoxes = net(searches, tokens.repeat_interleave(len(example.edges) // len(example.boxes), 0))
    return refined
