# SPDX-License-Identifier: Apache-2.0
"""Box refinement by a closer look: the box refiner sees a small window around the target, in one pass.

On the first frame, where the box is known, the target's tokens are fitted to it: see `fit_tokens`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dimp_ros.geometry.box import Box
from dimp_ros.images.closer_window import CloserWindow, crop_window, turned_box
from dimp_ros.images.picture import Picture
from dimp_ros.model.backbone import Features
from dimp_ros.model.box_refiner import CONTEXT, WINDOW_SIZE, BoxRefiner, box_losses
from dimp_ros.model.inference.network import InferenceNet
from dimp_ros.tracker.box_refinement import clip_box, peak_boxes
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.device import upload
from dimp_ros.tracker.target_state import TrackedTarget


class FirstLook(NamedTuple):
    """A view of the first frame: the image turned by ``angle`` degrees and stretched about the target, and a box that
    is displaced by ``shift`` and off by the factors ``size``, in sides of the true one.
    """

    shift: tuple[float, float] = (0.0, 0.0)
    size: tuple[float, float] = (1.0, 1.0)
    angle: float = 0.0
    stretch: tuple[float, float] = (1.0, 1.0)

    def window(self, box: Box) -> tuple[CloserWindow, NDArray[np.float64], Box]:
        """Return the window round the wrong box, the change of the image, and the true box after it."""
        turn = math.radians(self.angle)
        change = np.diag(self.stretch) @ [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
        truth = turned_box(box, change)
        (cx, cy), (x, y), (w, h) = truth.center, self.shift, self.size
        wrong = Box.from_center(cx + x * truth.w, cy + y * truth.h, w * truth.w, h * truth.h)
        return CloserWindow.around(wrong, CONTEXT, WINDOW_SIZE), change, truth


PLAIN_LOOKS = 4
FIRST_LOOKS = (
    FirstLook(),
    FirstLook((0.06, -0.06), (1.1, 0.92)),
    FirstLook((-0.06, 0.06), (0.92, 1.1)),
    FirstLook((0.12, 0.1), (1.25, 1.2)),
    FirstLook((-0.1, -0.12), (0.85, 0.8)),
    FirstLook((0.05, 0.0), (0.95, 1.05), angle=10.0),
    FirstLook((0.0, -0.05), (1.05, 0.95), angle=-10.0),
    FirstLook((-0.05, 0.05), stretch=(1.15, 1.15)),
    FirstLook((0.05, 0.05), stretch=(0.87, 0.87)),
    FirstLook((0.0, 0.05), stretch=(1.12, 0.94)),
)
"""Views of the first frame; on the first ``PLAIN_LOOKS``, in which the image is unchanged, errors are measured."""


def _extract(net: InferenceNet, crops: Sequence[NDArray[np.uint8]], device: torch.device) -> Features:
    return Features(*(maps.float() for maps in net.extract(upload(list(crops), device))))


def remember_target(
    target: TrackedTarget, net: InferenceNet, picture: Picture, config: TrackerConfig, device: torch.device
) -> None:
    """Set what the box refiner needs of a target: its tokens, fitted to the first frame, and the errors that are left.

    The errors are those of the edges: left, top, right, bottom in box sides.
    """
    refiner, box = net.box_refiner, target.box
    assert refiner is not None
    own = CloserWindow.around(box, CONTEXT, WINDOW_SIZE)
    learns = config.box_fit_steps or config.first_frame_correction
    looks = [look.window(box) for look in FIRST_LOOKS] if learns else []
    crops = [crop_window(picture, window, change, box.center) for window, change, _ in looks]
    features = _extract(net, [crop_window(picture, own), *crops], device)
    inside = torch.tensor([own.box_to_window(box)], dtype=torch.float32, device=device)
    target.tokens = refiner.tokens(Features(*(maps[:1] for maps in features)), inside)
    if not learns:
        return
    views = Features(*(maps[1:] for maps in features))
    edges = torch.tensor(np.stack([window.edges(truth) for window, _, truth in looks]), dtype=torch.float32)
    edges = edges.to(device)
    if config.box_fit_steps:
        target.tokens = fit_tokens(refiner, target.tokens, views, edges, config)
    plain = Features(*(maps[:PLAIN_LOOKS] for maps in views))
    found = refiner(plain, target.tokens.expand(PLAIN_LOOKS, -1, -1)).edges
    size = (found[:, 2:] - found[:, :2]).clamp(min=1e-3).repeat(1, 2)
    left, top, right, bottom = ((found - edges[:PLAIN_LOOKS]) / size).mean(0).tolist()
    if all(map(math.isfinite, (left, top, right, bottom))):
        target.edge_errors = (left, top, right, bottom)


def fit_tokens(refiner: BoxRefiner, tokens: Tensor, views: Features, edges: Tensor, config: TrackerConfig) -> Tensor:
    """Return tokens with which the edges are found in the views of the first frame: a few steps of Adam on the tokens.

    :param tokens: what one target is remembered by, ``Tensor[1, T, C]``. :param views: features of V windows.
    :param edges: the target's in each, ``Tensor[V, 4]`` in window sides.
    """
    with torch.inference_mode(False), torch.enable_grad():
        start, edges = tokens.clone(), edges.clone()
        views = Features(*(maps.clone() for maps in views))
        scale = start.abs().mean()
        change = torch.zeros_like(start).requires_grad_(True)
        optimizer = torch.optim.Adam([change], lr=config.box_fit_rate)
        for _ in range(config.box_fit_steps):
            losses = box_losses(refiner(views, (start + change * scale).expand(len(edges), -1, -1)), edges)
            loss = 2 * losses["distance"] + losses["overlap"]
            (change.grad,) = torch.autograd.grad(loss, [change])
            optimizer.step()
        return (start + change * scale).detach()


class CloserBox(NamedTuple):
    """A refined box in image pixels, and its predicted overlap with the target, 0..1."""

    box: Box
    overlap: float


def look_closer(
    net: InferenceNet, picture: Picture, boxes: Sequence[Box], tokens: Tensor, device: torch.device
) -> list[CloserBox]:
    """Refine boxes in image pixels once; one that cannot be refined stays, with a predicted overlap of 0.

    :param tokens: of the targets, ``Tensor[B, T, C]``.
    """
    assert net.box_refiner is not None
    windows = [CloserWindow.around(box, CONTEXT, WINDOW_SIZE) for box in boxes]
    features = _extract(net, [crop_window(picture, window) for window in windows], device)
    found = net.box_refiner(features, tokens)
    rows = torch.cat((found.edges, torch.sigmoid(found.quality)[:, None]), 1).tolist()
    refined = []
    for box, window, (left, top, right, bottom, overlap) in zip(boxes, windows, rows, strict=True):
        valid = all(map(math.isfinite, (left, top, right, bottom, overlap))) and left < right and top < bottom
        edges = window.edges_to_image((left, top, right, bottom)) if valid else box
        refined.append(CloserBox(edges, overlap if valid else 0.0))
    return refined


def refine_closer(
    targets: Sequence[TrackedTarget], net: InferenceNet, picture: Picture, config: TrackerConfig, device: torch.device
) -> list[Box]:
    """Refine the boxes of targets at the score peaks of their last search results; return them in image pixels.

    The predicted overlaps are set in the targets.
    """
    size = (picture.width, picture.height)
    boxes = peak_boxes(targets, size, config)
    tokens = torch.cat([target.tokens for target in targets if target.tokens is not None])
    for _ in range(config.closer_looks):
        refined = look_closer(net, picture, boxes, tokens, device)
        boxes = [clip_box(box, size, config) for box, _ in refined]
        for target, (_, overlap) in zip(targets, refined, strict=True):
            target.predicted_overlap = overlap
    return boxes
