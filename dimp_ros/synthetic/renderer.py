# SPDX-License-Identifier: Apache-2.0
"""Render planned scenes on tensors: windows of many frames at once, on the device of the images.

Every output pixel samples the frame's background image, then each object over it. Outside the frame the border is
repeated, as in the tracker's crop. Textures are averaged before shrinking, against aliasing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dimp_ros.synthetic.image_store import CANVAS, MARGIN, Pixels
from dimp_ros.synthetic.motion import invert
from dimp_ros.synthetic.scene import Layer, PlannedScene

MAX_LEVEL = 3
"""Textures are averaged down by at most 2 to this power."""


class SceneRenderer:
    """Renders frames of scenes on the device of ``pixels``."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        self.device = pixels.device

    def render(
        self, scenes: Sequence[PlannedScene], windows: Sequence[NDArray[np.float64]], size: tuple[int, int]
    ) -> Tensor:
        """Render a window of every frame of every scene.

        :param windows: for each scene ``[K, 3]``: the window's corner (x, y) in the frame, frame pixels per pixel.
        :param size: height and width of the output.
        :return: RGB ``float32 [N, 3, *size]`` of 0..255, N = all frames.
        """
        places = torch.cat([self._places(scene, window, size) for scene, window in zip(scenes, windows, strict=True)])
        images = torch.empty(len(places), 3, *size, device=self.device)
        start = 0
        for scene, window in zip(scenes, windows, strict=True):
            stop = start + len(scene)
            self._backdrop(scene, window[:, 2], places[start:stop], images[start:stop])
            start = stop
        starts = np.cumsum([0, *(len(scene) for scene in scenes)])
        for depth in range(max(len(scene.layers) for scene in scenes)):
            drawn = [
                (first + k, scene.layers[depth], k, window[k, 2])
                for scene, window, first in zip(scenes, windows, starts[:-1], strict=True)
                if depth < len(scene.layers)
                for k in np.flatnonzero(scene.layers[depth].shown)
            ]
            if drawn:
                self._draw(images, places, drawn)
        return images

    def frames(self, scene: PlannedScene) -> Tensor:
        """Render the whole frames of a scene: RGB ``uint8 [K, 3, height, width]``."""
        whole = np.tile([0.0, 0.0, 1.0], (len(scene), 1))
        return self.render([scene], [whole], (scene.height, scene.width)).round().clamp(0, 255).byte()

    def _places(self, scene: PlannedScene, window: NDArray[np.float64], size: tuple[int, int]) -> Tensor:
        """Return each output pixel's position in its frame, ``[K, H, W, 2]``, clamped to the frame."""
        corner = self._tensor(window)
        rows, columns = (torch.arange(n, device=self.device) + 0.5 for n in size)
        x = (corner[:, 0, None] + corner[:, 2, None] * columns).clamp(0.5, scene.width - 0.5)
        y = (corner[:, 1, None] + corner[:, 2, None] * rows).clamp(0.5, scene.height - 0.5)
        shape = (len(window), *size)
        return torch.stack((x[:, None, :].expand(shape), y[:, :, None].expand(shape)), -1)

    def _backdrop(self, scene: PlannedScene, scales: NDArray[np.float64], places: Tensor, out: Tensor) -> None:
        """Draw the backgrounds of a scene's frames; those with the same image and resolution together."""
        back = invert(scene.views)
        ratio = scales * np.sqrt(np.abs(np.linalg.det(back[:, :, :2])))
        levels = _levels(ratio)
        groups: dict[tuple[int, int], list[int]] = {}
        for k, key in enumerate(zip(scene.images.tolist(), levels.tolist(), strict=True)):
            groups.setdefault(key, []).append(k)
        for (number, level), members in groups.items():
            image = self.pixels.image(number)
            reduced = _reduced(image[None].float(), level)
            extent = (image.shape[2], image.shape[1])
            chosen = torch.tensor(members, device=self.device)
            grid = self._grid(places[chosen], back[members], extent)
            # One image, many windows: stacked vertically in a single grid.
            tall = F.grid_sample(reduced, grid.flatten(0, 1)[None], padding_mode="reflection", align_corners=False)
            out[chosen] = tall[0].unflatten(1, (len(members), -1)).transpose(0, 1)

    def _draw(self, images: Tensor, places: Tensor, drawn: list[tuple[int, Layer, int, float]]) -> None:
        """Draw one object in each of some frames: (frame, layer, its k, frame pixels per output pixel)."""
        back = invert(np.stack([layer.transforms[k] for _, layer, k, _ in drawn]))
        # Units of the object's box to pixels of its canvas.
        inner = CANVAS - 2 * MARGIN
        back = back * inner + np.array([[0, 0, MARGIN]] * 2)
        scales = np.array([scale for *_, scale in drawn])
        levels = _levels(scales * np.sqrt(np.abs(np.linalg.det(back[:, :, :2]))))
        for level in np.unique(levels):
            members = np.flatnonzero(levels == level)
            some = [drawn[i] for i in members]
            frames = torch.tensor([item[0] for item in some], device=self.device)
            canvases = self.pixels.canvases[torch.tensor([item[1].canvas for item in some], device=self.device)].float()
            canvases = self._bent(canvases, some)
            gain = self._tensor(np.stack([layer.gain[k] for _, layer, k, _ in some]))
            grid = self._grid(places[frames], back[members], (CANVAS, CANVAS))
            sampled = F.grid_sample(_reduced(canvases, int(level)), grid, padding_mode="zeros", align_corners=False)
            alpha = sampled[:, 3:] / 255
            colour = (sampled[:, :3] * gain[..., None, None]).minimum(255 * alpha)
            images[frames] = images[frames] * (1 - alpha) + colour

    def _bent(self, canvases: Tensor, drawn: list[tuple[int, Layer, int, float]]) -> Tensor:
        """Bend the canvases of layers with a field."""
        bending = [(i, layer.bend[k]) for i, (_, layer, k, _) in enumerate(drawn) if layer.bend is not None]
        if not bending:
            return canvases
        chosen = torch.tensor([i for i, _ in bending], device=self.device)
        field = self._tensor(np.stack([field for _, field in bending])).permute(0, 3, 1, 2)
        field = F.interpolate(field, (CANVAS, CANVAS), mode="bilinear", align_corners=True)
        steps = (torch.arange(CANVAS, device=self.device) + 0.5) * 2 / CANVAS - 1
        rest = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)
        units_to_grid = (CANVAS - 2 * MARGIN) * 2 / CANVAS
        moved = F.grid_sample(canvases[chosen], rest + field.permute(0, 2, 3, 1) * units_to_grid, align_corners=False)
        return canvases.index_copy(0, chosen, moved)

    def _grid(self, places: Tensor, back: NDArray[np.float64], extent: tuple[int, int]) -> Tensor:
        """Convert positions in the frame ``[K, H, W, 2]`` to grid_sample coordinates for a texture of ``extent``."""
        normal = np.array([2.0 / extent[0], 2.0 / extent[1]])
        matrix = back * normal[None, :, None]
        matrix[:, :, 2] -= 1
        m = self._tensor(matrix)[:, None, None]
        x, y = places[..., 0], places[..., 1]
        return torch.stack(
            (m[..., 0, 0] * x + m[..., 0, 1] * y + m[..., 0, 2], m[..., 1, 0] * x + m[..., 1, 1] * y + m[..., 1, 2]), -1
        )

    def _tensor(self, values: NDArray[np.float64]) -> Tensor:
        """Move numbers to the device, in single precision."""
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(self.device, non_blocking=True)


def _levels(ratio: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return how often to halve a texture when ``ratio`` of its pixels fall on one output pixel."""
    return np.clip(np.floor(np.log2(np.maximum(ratio, 1e-6))), 0, MAX_LEVEL).astype(np.int64)


def _reduced(texture: Tensor, level: int) -> Tensor:
    """Average a texture ``[N, C, H, W]`` down by 2 to the power of ``level``; its extent stays the same."""
    if level == 0:
        return texture
    size = [max(n >> level, 1) for n in texture.shape[-2:]]
    return F.interpolate(texture, size, mode="area")
