# SPDX-License-Identifier: Apache-2.0
"""Log of a run: scalars and contact sheets, as JSON lines and for TensorBoard."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dimp_ros.files.json_file import named_errors
from dimp_ros.files.outputs import append_line
from dimp_ros.images.files import write_image
from dimp_ros.training.network import Frames

GREEN, YELLOW, RED = (0, 220, 0), (0, 220, 255), (0, 0, 255)


REMEDY = "give another --folder, or move the files of the run away to start over"
"""For a checkpoint that cannot be used."""


class RunLog:
    """Writes ``log.jsonl`` and ``sheets/`` into a folder, and TensorBoard's files where that package is installed."""

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            print("dimp-train: TensorBoard is not installed (pip install tensorboard); log.jsonl has the same scalars")
        else:
            # Discards what an interrupted run wrote after its last checkpoint.
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def add(self, values: dict[str, Any]) -> None:
        """Add the scalars of one step; tensors are read in `write`, so that this does not synchronise a GPU."""
        for name, value in values.items():
            value = value.detach() if isinstance(value, Tensor) else torch.tensor(float(value))
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
            self._counts[name] = self._counts.get(name, 0) + 1

    def write(self, step: int, seconds: float) -> dict[str, str]:
        """Write the means since the last call, if any; return some of them as text."""
        if not self._sums:
            return {}
        means = {name: float(total) / self._counts[name] for name, total in sorted(self._sums.items())}
        self._sums.clear()
        self._counts.clear()
        self._line({"step": step, "seconds": round(seconds), **means})
        for name, value in means.items():
            self._scalar(f"train/{name}", value, step)
        return {name: f"{means[name]:.4f}" for name in ("final", "initial", "iou") if name in means}

    def scalars(self, step: int, values: dict[str, float], kind: str) -> None:
        """Write scalars of another kind, such as validation losses."""
        self._line({"step": step, "kind": kind, **values})
        for name, value in values.items():
            self._scalar(f"{kind}/{name}", value, step)

    def sheet(self, step: int, frames: Frames) -> None:
        """Write a sheet of a batch's images with their boxes."""
        sheet = contact_sheet(frames)
        (self.folder / "sheets").mkdir(exist_ok=True)
        write_image(self.folder / "sheets" / f"{step:07d}.jpg", sheet)
        if self._board is not None:
            self._board.add_image("images", np.ascontiguousarray(sheet[..., ::-1]), step, dataformats="HWC")

    def _line(self, values: dict[str, Any]) -> None:
        append_line(self.folder / "log.jsonl", json.dumps(values))

    def _scalar(self, name: str, value: float, step: int) -> None:
        if self._board is not None:
            self._board.add_scalar(name, value, step)


def contact_sheet(frames: Frames, rows: int = 8, side: int = 144) -> NDArray[np.uint8]:
    """Draw a row per sequence, as BGR; boxes are green if visible, yellow if partly, red if hidden."""
    images, boxes, visible = frames.maps[0].cpu(), frames.boxes.cpu().numpy(), frames.visible.cpu().numpy()
    lines = []
    for b in range(min(rows, len(images))):
        cells = []
        for k in range(images.shape[1]):
            cell = np.ascontiguousarray(images[b, k].permute(1, 2, 0).numpy()[..., ::-1])
            x, y, w, h = boxes[b, k]
            colour = GREEN if visible[b, k] > 0.4 else YELLOW if visible[b, k] > 0.1 else RED
            corners = (round(float(x)), round(float(y))), (round(float(x + w)), round(float(y + h)))
            cv2.rectangle(cell, *corners, colour, 2)
            cells.append(cv2.resize(cell, (side, side), interpolation=cv2.INTER_AREA))
        lines.append(np.hstack(cells))
    return np.asarray(np.vstack(lines), dtype=np.uint8)


def read_state(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return the state of a run that ``torch.save`` wrote.

    torch does not check the CRC of what it reads, so a flipped byte would change the weights or the optimizer unseen.

    :raises ValueError: if the file is damaged or of another kind, naming it.
    """
    with named_errors(path, REMEDY, RuntimeError, UnpicklingError, EOFError, BadZipFile, zlib.error):
        with ZipFile(path) as archive:
            if (entry := archive.testzip()) is not None:
                raise BadZipFile(f"the CRC of its entry {entry} is wrong")
        return dict(torch.load(path, map_location=device, weights_only=True))
