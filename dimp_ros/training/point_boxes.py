# SPDX-License-Identifier: Apache-2.0
"""Training of the head that finds the box of the object at a point, on the fixed features of a model's backbone.

``python -m dimp_ros.training.point_boxes --folder RUN --clips CLIPS --images IMAGES --export WEIGHTS``

A run computes the features of its examples once, and trains on them for ``--minutes``; a further run on the same folder
starts from the head that is there. Head and features say of which backbone they are, and the features of which images.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimp_ros.datasets.base import data_digest
from dimp_ros.files.arguments import number, whole
from dimp_ros.files.json_file import named_errors
from dimp_ros.files.program import command
from dimp_ros.files.shared_folder import sole_run
from dimp_ros.model.backbone import Features
from dimp_ros.model.box_refiner import giou
from dimp_ros.model.checkpoints.checkpoint import load_model, save_torch, save_weights
from dimp_ros.model.checkpoints.network_source import tensors_digest
from dimp_ros.model.checkpoints.weights_file import find_weights
from dimp_ros.model.inference.network import InferenceNet
from dimp_ros.model.point_box import PointBoxes, PointBoxHead, cell_centers
from dimp_ros.model.sizes import POINT_WINDOWS
from dimp_ros.training.frame_store import add_store_arguments, data_sets_of, store_of
from dimp_ros.training.interruption import deferred_signals
from dimp_ros.training.point_examples import FeatureFile, PointBatch, PointSampler
from dimp_ros.training.run_lock import check_run
from dimp_ros.training.run_log import REMEDY, read_state

PROGRAM = "python -m dimp_ros.training.point_boxes"

_log = logging.getLogger(__name__)

HEAD, FEATURES = "head.pt", "features.bin"

LEAST_SHARE, MOST_SHARE = 0.1, 1.15
"""Longer side of a box, in sides of the window, between which a window learns its edges."""


@dataclass(frozen=True)
class PointBoxSettings:
    """Of a run. :param batch: points in a step. :param warm_up: steps in which the learning rate rises."""

    batch: int = 24
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warm_up: int = 100
    clip_norm: float = 5.0
    seed: int = 0


def point_losses(boxes: PointBoxes, edges: Tensor) -> dict[str, Tensor]:
    """Return the parts of the loss.

    ``box``: distance of the edges in longer sides of the box and 1 - GIoU, of the best of the K boxes of a window, and
    a tenth of their mean; ``quality``: cross entropy of the predicted overlaps; ``choice``: overlap that
    is lost by the choice among the boxes of a point; ``inside``: cross entropy of the cells in the box.

    :param edges: the true ones, ``Tensor[B, 4]`` in window sides; nan where there is no object.
    """
    count, hypotheses = boxes.quality.shape
    known = torch.isfinite(edges).all(1)
    truth = torch.where(known[:, None], edges, edges.new_tensor([0.4, 0.4, 0.6, 0.6]))
    sides = truth[:, 2:] - truth[:, :2]
    learned = known & (sides.amax(1) > LEAST_SHARE) & (sides.amax(1) < MOST_SHARE)
    overlap, generalized = giou(boxes.edges.flatten(0, 1), truth.repeat_interleave(hypotheses, 0))
    distance = (boxes.edges - truth[:, None]).abs().mean(-1) / sides.amax(1, keepdim=True)
    each = 1 - generalized.view(count, hypotheses) + 2 * distance
    box = (each.amin(1) + 0.1 * each.mean(1)) * learned
    overlap = overlap.detach().view(count, hypotheses) * known[:, None]
    quality = F.binary_cross_entropy_with_logits(boxes.quality, overlap)
    points = (-1, len(POINT_WINDOWS) * hypotheses)
    chances = (2 * boxes.quality).view(points).softmax(1)
    choice = (
        (overlap.view(points).amax(1) - (chances * overlap.view(points)).sum(1)) * known[:: len(POINT_WINDOWS)]
    ).mean()
    x, y = cell_centers().to(truth).unbind(-1)
    cells = (x > truth[:, :1]) & (x < truth[:, 2:3]) & (y > truth[:, 1:2]) & (y < truth[:, 3:])
    inside = F.binary_cross_entropy_with_logits(boxes.inside, cells.float(), reduction="none").mean(1)
    return {
        "box": box.sum() / learned.sum().clamp(min=1),
        "quality": quality,
        "choice": choice,
        "inside": (inside * known).sum() / known.sum().clamp(min=1),
    }


def apply_head(head: PointBoxHead, batch: PointBatch) -> PointBoxes:
    """Run the head with products in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16):
        boxes: PointBoxes = head(Features(*(maps.bfloat16() for maps in batch.features)))
    return PointBoxes(*(part.float() for part in boxes))


def train(
    head: PointBoxHead,
    features: FeatureFile,
    settings: PointBoxSettings,
    minutes: float,
    interrupted: Callable[[], bool] = lambda: False,
) -> None:
    """Train for some minutes or until ``interrupted()``; the learning rate falls to zero along a cosine.

    :raises ValueError: if there is no example.
    """
    rng = np.random.default_rng(settings.seed)
    optimizer = torch.optim.AdamW(head.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    if not len(features):
        raise ValueError("there is no point to train on; give more --points or --extract-minutes")
    start, sums, steps, order = time.monotonic(), dict[str, float](), 0, list[int]()
    head.train()
    while (done := (time.monotonic() - start) / (60 * minutes)) < 1 and not interrupted():
        if len(order) < settings.batch:
            order = rng.permutation(len(features)).tolist()
        numbers, order = order[: settings.batch], order[settings.batch :]
        factor = min((steps + 1) / settings.warm_up, (1 + math.cos(math.pi * done)) / 2)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * factor
        batch = features.batch(numbers)
        losses = point_losses(apply_head(head, batch), batch.edges)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(head.parameters(), settings.clip_norm)
        optimizer.step()
        steps += 1
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach()) / 50
        if steps % 50 == 0:
            epochs = steps * settings.batch / len(features)
            _log.info("%d, epoch %.1f %s", steps, epochs, {name: round(value, 4) for name, value in sums.items()})
            sums = {}
    head.eval()


def export(head: PointBoxHead, base: str, path: Path, points: int) -> None:
    """Write the weights of ``base`` with the head, in half precision."""
    net, info = load_model(base)
    net.add_point_box()
    assert net.point_box is not None
    net.point_box.load_state_dict(head.state_dict())
    details = {**info.details, "point_box_points": points}
    save_weights(path, net.eval(), replace(info, details=details), torch.float16)


@command(PROGRAM)
def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="of the run: features.bin and head.pt")
    add_store_arguments(parser)
    parser.add_argument("--base", default="dimp_lite", help="weights whose backbone is used")
    parser.add_argument("--points", type=whole(), default=16_000, help="number of examples to train on")
    parser.add_argument("--extract-minutes", type=number(), default=60, help="how long to add examples at most")
    parser.add_argument("--minutes", type=number(), default=30, help="how long to train")
    parser.add_argument("--learning-rate", type=number(above=True), default=PointBoxSettings.learning_rate)
    parser.add_argument("--threads", type=whole(), default=2)
    parser.add_argument("--export", type=Path, help="write the weights of --base with the head of the run")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    try:
        weights = find_weights(arguments.base)
        inputs = [("--base", weights), ("--clips", arguments.clips), ("--images", arguments.images)]
        stores = [("--store", arguments.store)]
        check_run(arguments.folder, (HEAD, FEATURES), inputs, stores=stores, export=arguments.export)
        with sole_run(arguments.folder), deferred_signals() as interrupted:
            run(arguments, interrupted)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return 3 if interrupted() else 0


def load_head(path: Path, channels: tuple[int, int], backbone: str) -> tuple[PointBoxHead, int]:
    """Return the head of a run and the number of points that it was trained on; a new one, and 0, where there is none.

    :param backbone: hash of the backbone. :raises ValueError: if the head is damaged, or of another backbone.
    """
    head, points = PointBoxHead(channels), 0
    if path.is_file():
        state = read_state(path)
        if state.get("backbone") != backbone:
            raise ValueError(f"{path} is of another backbone than that of --base, or does not say of which; {REMEDY}")
        with named_errors(path, REMEDY, RuntimeError):
            head.load_state_dict(state["head"])
            points = int(state["points"])
    return head, points


def run(arguments: argparse.Namespace, interrupted: Callable[[], bool]) -> None:
    """Add examples, train until ``interrupted()`` at most, and export; without ``--minutes`` export only, if asked to.

    :raises OSError, ValueError: naming a file that cannot be used.
    """
    net, _ = load_model(arguments.base)
    backbone, path = tensors_digest(net.feature_extractor.state_dict()), arguments.folder / HEAD
    head, points = load_head(path, net.feature_extractor.channels, backbone)
    if arguments.minutes > 0 or not arguments.export:
        origin = {"backbone": backbone, "images and boxes": data_digest(data_sets_of(arguments))}
        features = FeatureFile(arguments.folder / FEATURES, net.feature_extractor.channels, origin)
        if len(features) < arguments.points and arguments.extract_minutes > 0:
            fast = InferenceNet(net.to(memory_format=torch.channels_last), torch.bfloat16)  # type: ignore[call-overload]
            sampler = PointSampler(store_of(arguments), seed=len(features))
            features.extend(fast, sampler, arguments.points, arguments.extract_minutes, interrupted)
        _log.info("%d points", len(features))
        if arguments.minutes > 0 and not interrupted():
            settings = PointBoxSettings(learning_rate=arguments.learning_rate, seed=int(points > 0))
            train(head, features, settings, arguments.minutes, interrupted)
            points = len(features)
            save_torch(path, {"head": head.state_dict(), "backbone": backbone, "points": points})
    if interrupted():
        _log.info("interrupted; repeat the command to go on with what is in %s", arguments.folder)
    elif arguments.export and not points:
        raise ValueError(f"{arguments.folder} has no {HEAD} to export; train one, with more --minutes")
    elif arguments.export:
        export(head.eval(), arguments.base, arguments.export, points)


if __name__ == "__main__":
    raise SystemExit(main())
