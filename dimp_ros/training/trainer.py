# SPDX-License-Identifier: Apache-2.0
"""The training loop: optimiser steps, averaged weights, logs, and checkpoints from which a run resumes."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import yaml
from torch import Tensor, nn
from tqdm import tqdm

from dimp_ros.datasets.base import held_out
from dimp_ros.datasets.registry import open_data_sets
from dimp_ros.files.json_file import named_errors
from dimp_ros.files.outputs import write_bytes, write_text
from dimp_ros.files.shared_folder import SharedFolder
from dimp_ros.model.box_refiner import BoxRefiner
from dimp_ros.model.checkpoints.checkpoint import (
    load_model,
    read_weights,
    save_torch,
    stored_tensors,
    weights_content,
)
from dimp_ros.model.checkpoints.network_source import tensors_digest
from dimp_ros.model.checkpoints.weights_file import WeightsError, WeightsInfo
from dimp_ros.model.dimp import DimpNet, build_empty_model, build_model
from dimp_ros.model.point_box import PointBoxHead
from dimp_ros.synthetic.image_store import Pixels, open_tables
from dimp_ros.synthetic.image_store_writer import build_store
from dimp_ros.synthetic.scene_planner import ScenePlanner
from dimp_ros.training.batches import BatchStream, CachedBatches, FreshBatches, validation_frames
from dimp_ros.training.config import TrainingConfig
from dimp_ros.training.distributed import DistributedContext, broadcast, distribute
from dimp_ros.training.exported_file import HASH_SUFFIX, ExportedFile
from dimp_ros.training.network import Frames, TrainingNetwork, parameter_groups
from dimp_ros.training.run_log import REMEDY, RunLog, read_state

RECORD_EVERY, SAVE_EVERY = 50, 250
CHECKPOINT, WEIGHTS, CONFIG = "checkpoint.pt", "weights.safetensors", "config.yaml"
OUTPUTS = (CHECKPOINT, WEIGHTS, Path(WEIGHTS).with_suffix(HASH_SUFFIX).name, CONFIG, "log.jsonl")
"""Files in a run's folder that are replaced or appended to."""


class Heads(NamedTuple):
    """What `Trainer` does not train: the box refiner, which has a backbone of its own, and the head for points."""

    box_refiner: BoxRefiner | None = None
    point_box: PointBoxHead | None = None


class Trainer:
    """Trains a network.

    :param config: see `TrainingConfig`. :param folder: where checkpoints, logs, caches and the image store go; a run
        found there is continued. :param context: this process's, see `distributed.init_distributed`.
    :param workers: processes that plan or render sequences. :param start: initial weights instead of ImageNet's; a
        run that is continued must have begun with them.
    :param store: folder of the image store, which several runs may share; by default in ``folder``.
    """

    def __init__(
        self,
        config: TrainingConfig,
        folder: Path,
        context: DistributedContext,
        *,
        workers: int = 0,
        start: Path | None = None,
        store: Path | None = None,
    ) -> None:
        self.config, self.folder, self.context, self.workers = config, folder, context, workers
        self._held: list[SharedFolder] = []  # the stores, which are opened again in the course of a run
        data_sets = open_data_sets(config.data) if context.is_main else []
        folder.mkdir(parents=True, exist_ok=True)
        self.store = store or folder / "store"
        self.exported = ExportedFile(folder / WEIGHTS)
        resumed = self.checkpoint.exists()
        self._build(start, resumed)  # before the images are decoded: a wrong configuration fails at once
        if resumed:
            self._restore(start)
        if context.is_main:
            print(
                f"dimp-train: image store {self.store}; decoding at the first start takes a minute or more",
                file=sys.stderr,
            )
            for name, keep in (("train", trained_on), ("held_out", held_out)):
                held = build_store(self.store / name, data_sets, keep, clip_frames=config.clip_frames)
                self._held.append(held)
        broadcast(True, context)  # waits for the store
        self.log = RunLog(folder, self.step) if context.is_main else None
        self._validation: list[Frames] = []

    def _build(self, start: Path | None, resumed: bool) -> None:
        """Build the network, its average and the optimiser; a run that is resumed needs no weights to begin with."""
        config, context = self.config, self.context
        torch.manual_seed(config.seed)
        model = build_model(config.model)
        self._heads, self._settings = Heads(), dict[str, Any]()
        self.origin = self._start = ""
        if start is None and not resumed:
            from dimp_ros.training.pretrained import load_pretrained_backbone

            self.origin = load_pretrained_backbone(
                model, Path(config.backbone_weights) if config.backbone_weights else None
            )
        elif start is not None:
            loaded, info = load_model(str(start))
            if info.architecture != config.model:
                raise ValueError(
                    f"{start} holds {info.architecture!r} weights; the configuration wants {config.model!r}"
                )
            self._start = tensors_digest(loaded.state_dict())
            self._heads = Heads(loaded.box_refiner, loaded.point_box if config.backbone == "frozen" else None)
            self._settings = dict(info.tracker)
            loaded.box_refiner = loaded.point_box = None
            model.load_state_dict(loaded.state_dict())
            self.origin = f"{start.name} ({info.commit[:7] or 'commit unknown'})"
        self.model = model.to(context.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = TrainingNetwork(self.model, config)
        self.optimizer = torch.optim.Adam(parameter_groups(self.model, config.learning_rates))
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.parallel = distribute(self.network, context, unused=config.classifier_every > 1 or not config.losses.iou)
        self.step = 0
        self.seconds = 0.0

    @property
    def checkpoint(self) -> Path:
        """The file from which a run resumes."""
        return self.folder / CHECKPOINT

    def _batches(self, interrupted: Callable[[], bool]) -> BatchStream:
        """Open the source of batches.

        :param interrupted: ends the rendering of a cache; not with several processes, which have to stop together.
        :raises ValueError: if the images allow no sequence.
        """
        config, context, store = self.config, self.context, self.store / "train"
        alone = (interrupted,) if context.world == 1 else ()
        tables = open_tables(store)
        ScenePlanner(tables, config.scenes)  # here rather than in each worker
        if config.reuse:
            return CachedBatches(self.folder, store, self.model, config, context.rank, self.workers, *alone)
        pixels = Pixels(store, tables, context.device)
        return FreshBatches(store, pixels, config, context.rank, self.workers, *alone)

    def run(self, seconds: float = math.inf, interrupted: Callable[[], bool] = lambda: False) -> bool:
        """Train until the end, for ``seconds`` or until ``interrupted()``; return whether the run is complete."""
        deadline = time.monotonic() + seconds
        stopped, idle = False, self.step >= self.config.steps
        bar = tqdm(
            total=self.config.steps, initial=self.step, desc="steps", mininterval=10, disable=not self.context.is_main
        )
        if self.step < self.config.steps:
            batches = self._batches(lambda: interrupted() or time.monotonic() > deadline).batches(self.step)
            stopped = broadcast(interrupted(), self.context)
            while self.step < self.config.steps and not stopped:
                started = time.monotonic()
                if (frames := next(batches, None)) is None:  # interrupted while a cache was rendered
                    break
                frames = frames.to(self.context.device)
                self.take_step(frames)
                self._after_step(frames, bar)
                self.seconds += time.monotonic() - started
                stopped = broadcast(time.monotonic() > deadline or interrupted(), self.context)
        bar.close()
        if self.context.is_main and self.log is not None:
            self.log.write(self.step, self.seconds)
            if idle and self.exported.changed:
                self._tell_kept()
            else:
                self.save()
        return self.step >= self.config.steps

    def _after_step(self, frames: Frames, bar: Any) -> None:
        """Log, validate and save, each at its own steps."""
        if not self.context.is_main or self.log is None:
            return
        bar.update()
        if self.step % RECORD_EVERY == 0:
            bar.set_postfix(self.log.write(self.step, self.seconds), refresh=False)
        every = self.config.validate_every
        if every and self.step % every == 0:
            self.log.scalars(self.step, self.validate(), "held_out")
            if frames.maps[0].shape[2] == 3:
                self.log.sheet(self.step, frames)
        if self.step % SAVE_EVERY == 0:
            self.save()

    def take_step(self, frames: Frames) -> None:
        """Take one step; its random numbers depend on seed, rank and step alone."""
        self.parallel.train()
        config = self.config
        seed = (config.seed * 1_000_003 + self.step) * 64 + self.context.rank
        losses: dict[str, Tensor] = self.parallel(frames, seed, classify=self.step % config.classifier_every == 0)
        self.optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        factor = rate_factor(config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self.optimizer.step()
        self.step += 1
        self._update_average()
        if self.log is not None:
            self.log.add({**losses, "norm": norm, "rate": factor})

    @torch.no_grad()
    def _update_average(self) -> None:
        """Move the averaged weights towards the current ones, faster at the start."""
        keep = min(self.config.ema, (1 + self.step) / (10 + self.step))
        pairs = zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True)
        floating = [(a, b) for a, b in pairs if a.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in floating], [b for _, b in floating], 1 - keep)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return the losses of the averaged weights on sequences of held-out images."""
        if not self._validation:
            store = self.store / "held_out"
            pixels = Pixels(store, open_tables(store), self.context.device)
            self._validation = validation_frames(store, self.config, pixels)
        network = TrainingNetwork(copy.deepcopy(self.average), self.config).eval()
        losses = [network(frames, index) for index, frames in enumerate(self._validation)]
        return {name: float(torch.stack([each[name] for each in losses]).mean()) for name in losses[0]}

    def save(self) -> None:
        """Write the checkpoint, the averaged weights and the configuration, each whole or not at all.

        Weights that were changed by others are kept.
        """
        weights, kept = self._weights(), self.exported.changed
        self.exported.announce(weights)
        state = {
            "config": self.config.plain(),
            "origin": self.origin,
            "start": self._start,
            "heads": {name: head and head.state_dict() for name, head in self._heads._asdict().items()},
            "tracker": self._settings,
            "step": self.step,
            "seconds": self.seconds,
            "export": self.exported.announced,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        save_torch(self.checkpoint, state)
        if kept:
            self._tell_kept()
        else:
            self.exported.write(weights)
        text = yaml.safe_dump(self.config.plain(), sort_keys=False)
        write_text(self.folder / CONFIG, text)

    def _tell_kept(self) -> None:
        print(f"dimp-train: {self.exported.remark}", file=sys.stderr)

    def export(self, path: Path) -> None:
        """Write the averaged weights in half precision with their metadata.

        The box refiner and the settings of the starting weights are kept, and their head for points where the backbone
        that it reads is frozen.
        """
        write_bytes(path, self._weights())

    def _weights(self) -> bytes:
        backbone = self.model.feature_extractor
        info = WeightsInfo(
            architecture=self.config.model,
            mean=backbone.mean,
            std=backbone.std,
            training_data=open_tables(self.store / "train").summary,
            licence="Apache-2.0",
            commit=_commit(),
            details={
                "origin": self.origin,
                "step": self.step,
                "sequences": self.step * self.config.batch * self.context.world,
                "seconds": round(self.seconds),
            },
            tracker=self._settings,
        )
        return weights_content(self._whole(), info, torch.float16)

    def _whole(self) -> DimpNet:
        """Return the averaged network with the heads that are trained apart."""
        whole = copy.deepcopy(self.average)
        whole.box_refiner, whole.point_box = self._heads
        return whole

    def _find_export(self) -> str:
        """Return the hash of the weights file if it has this network and no fitted confidence, else nothing."""
        try:
            found = read_weights(self.exported.path)
        except (OSError, WeightsError):
            return ""
        own = stored_tensors(self._whole(), torch.float16)
        same = tensors_digest(dict(sorted(found.tensors.items()))) == tensors_digest(dict(sorted(own.items())))
        fitted = found.info.confidence_knots or found.info.tracker != self._settings
        return self.exported.digest() if same and not fitted else ""

    def _restore(self, start: Path | None) -> None:
        """Resume from the checkpoint.

        :raises ValueError: if it is damaged, or of a run with another configuration or other weights to begin with, or
            if steps are left and others have changed the weights that they would replace.
        """
        state = read_state(self.checkpoint, self.context.device)
        with named_errors(self.checkpoint, REMEDY):
            settings, origin = dict(state["config"]), str(state["origin"])
        free = ("steps", "data", "validate_every", "validate_groups")  # may change within a run
        stored = {key: value for key, value in settings.items() if key not in free}
        wanted = {key: value for key, value in self.config.plain().items() if key not in free}
        if stored != wanted:
            changed = sorted(key for key in stored.keys() | wanted.keys() if stored.get(key) != wanted.get(key))
            raise ValueError(
                f"{self.folder} holds a run that differs in {changed}; give another --folder or its configuration"
            )
        self._check_start(state.get("start"), origin, start)
        with named_errors(self.checkpoint, REMEDY, RuntimeError):
            if "start" in state:
                self._start, self._settings = state["start"], state["tracker"]
                self._heads = heads_of(self.config.model, state["heads"])
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.origin, self.step, self.seconds = origin, state["step"], state["seconds"]
        self.exported.announced = str(state.get("export") or self._find_export())  # earlier checkpoints have no hash
        if self.step < self.config.steps and self.exported.changed:
            raise ValueError(self.exported.remark)

    def _check_start(self, begun: str | None, origin: str, start: Path | None) -> None:
        """Refuse other weights than those that the run began with.

        :param begun: their hash; None in earlier checkpoints, which have only their name, in ``origin``.
        """
        run = f"{self.folder} holds a run that began with {origin}"
        if start is not None and (self.origin != origin if begun is None else self._start != begun):
            raise ValueError(
                f"{run}, not with --start {start}; leave --start out to resume it, or give another --folder"
            )
        if start is None and begun is None and not origin.startswith("ImageNet weights"):
            raise ValueError(
                f"{run}, and its checkpoint, of an earlier version, lacks parts of them: give them as --start"
            )


def heads_of(model: str, states: dict[str, dict[str, Tensor] | None]) -> Heads:
    """Return the heads of a checkpoint."""
    net = build_empty_model(model)
    if (state := states["box_refiner"]) is not None:
        net.add_box_refiner()
        cast("BoxRefiner", net.box_refiner).load_state_dict(state)
    if (state := states["point_box"]) is not None:
        net.add_point_box()
        cast("PointBoxHead", net.point_box).load_state_dict(state)
    return Heads(net.box_refiner, net.point_box)


def rate_factor(config: TrainingConfig, step: int) -> float:
    """Return the learning rate at a step as a share of its peak."""
    warm = min(1.0, (step + 1) / max(config.warm_up, 1))
    if config.decay == "steps":
        return warm * config.decay_factor ** (step // config.decay_every)
    whole = config.schedule_steps or config.steps
    return warm * 0.5 * (1 + math.cos(math.pi * min(step / whole, 1.0)))


def trained_on(name: str) -> bool:
    """Tell whether the still or clip of this name is used for training."""
    return not held_out(name)


def _commit() -> str:
    """Return the commit of this checkout or bundle, empty if unknown."""
    root = Path(__file__).resolve().parents[2]
    if (root / "bundle.json").is_file():
        return str(json.loads((root / "bundle.json").read_text(encoding="utf-8")).get("commit", ""))
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
