# SPDX-License-Identifier: Apache-2.0
"""Photometric augmentation on batches of tensors: exposure, colour, blur, noise, compression.

`sample_photometric` draws the changes with the plan, so that they are the same on every device.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

BLUR = 31
"""Longest motion blur and side of its kernel, pixels: half of a target that fills a fifth of its window."""

COARSE, COARSEST = (1.2, 3.5), 4.5
"""Window pixels per pixel of a coarse camera at the sequence's median scale, and at most."""

COMPRESSED = 0.5
"""Share of the sequences with a simulated camera that are compressed in every frame."""

LATTICE_STEP = 16
"""A camera's pixels across a window are a multiple of this, so that frames can be processed together."""

# The quantisation tables of the JPEG standard's annex K, for quality 50.
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


class PhotometricSample(NamedTuple):
    """Photometric changes of K frames, each number 0 where nothing is done.

    ``gain`` ``[K, 3]`` and ``offset`` ``[K]`` (grey levels) of the light, ``shade`` ``[K, 3]`` (gradient of the light:
    x, y, strength), ``blur`` ``[K, 2]`` (pixels, degrees), ``shrink`` ``[K]`` (reduction factor of the resolution),
    ``noise`` ``[K]`` (grey levels), ``quality`` ``[K]`` of JPEG, ``grey`` ``[K]``, ``lattice`` ``[K]`` (camera pixels
    across the frame; noise and JPEG are applied at that resolution).
    """

    gain: NDArray[np.float64]
    offset: NDArray[np.float64]
    shade: NDArray[np.float64]
    blur: NDArray[np.float64]
    shrink: NDArray[np.int64]
    noise: NDArray[np.float64]
    quality: NDArray[np.int64]
    grey: NDArray[np.bool_]
    lattice: NDArray[np.int64]


def sample_photometric(rng: np.random.Generator, count: int, strength: float = 0.2) -> PhotometricSample:
    """Draw photometric changes for ``count`` frames of a sequence, independently; all are grey or none is."""

    def some(share: float) -> NDArray[np.bool_]:
        return rng.random(count) < share

    lit = some(0.7)
    gain = 1 + lit[:, None] * (
        rng.uniform(-strength, strength, (count, 1)) + rng.uniform(-strength / 3, strength / 3, (count, 3))
    )
    angle = rng.uniform(0, 2 * np.pi, count)
    return PhotometricSample(
        gain=gain,
        offset=lit * 64 * rng.uniform(-strength, strength, count),
        shade=np.stack((np.cos(angle), np.sin(angle), some(0.2) * rng.uniform(0.1, 0.5, count)), 1),
        blur=np.stack((some(0.2) * (3 + (BLUR - 3) * rng.uniform(0, 1, count) ** 2), rng.uniform(0, 180, count)), 1),
        shrink=some(0.12) * rng.integers(2, 5, count),
        noise=some(0.15) * rng.uniform(2, 10, count),
        quality=some(0.25) * rng.integers(20, 81, count),
        grey=np.full(count, rng.random() < 0.07),
        lattice=np.zeros(count, np.int64),
    )


def simulate_camera(
    sample: PhotometricSample, rng: np.random.Generator, scales: NDArray[np.float64], size: int, coarse: float
) -> PhotometricSample:
    """Give the frames of a sequence the resolution of one camera, so that small targets are coarse in their windows.

    Without it a target of 20 pixels is as sharp as one of 200. Compression then acts at the camera's resolution.

    :param scales: ``[K]``, frame pixels per pixel of the window, whose side is ``size``.
    :param coarse: probability of a camera coarser than the frame.
    """
    if rng.random() < coarse:
        fine = 1 / (np.exp(rng.uniform(*np.log(COARSE))) * np.median(scales))
    else:
        fine = 1.0
    quality = sample.quality
    if rng.random() < COMPRESSED:
        quality = np.where(quality > 0, quality, rng.integers(30, 91))
    lattice = np.round(size * scales * fine / LATTICE_STEP).astype(np.int64) * LATTICE_STEP
    lattice = np.maximum(lattice, round(size / COARSEST / LATTICE_STEP) * LATTICE_STEP)
    return sample._replace(quality=quality, lattice=np.where(lattice < size, lattice, 0))


def concatenate_samples(samples: list[PhotometricSample]) -> PhotometricSample:
    """Concatenate the samples of several sequences."""
    return PhotometricSample(*(np.concatenate(parts) for parts in zip(*samples, strict=True)))


def apply_photometric(images: Tensor, sample: PhotometricSample, generator: torch.Generator | None = None) -> Tensor:
    """Change frames ``[N, 3, H, W]`` of 0..255 as ``sample`` says; ``generator`` is for the noise."""
    device = images.device

    def numbers(values: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(np.asarray(values, dtype=np.float32)).to(device)

    def chosen(values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.flatnonzero(values)).to(device)

    def change(index: Tensor, values: Tensor) -> None:
        images.index_copy_(0, index, values)

    images = images * numbers(sample.gain)[:, :, None, None] + numbers(sample.offset)[:, None, None, None]
    if len(index := chosen(sample.shade[:, 2])):
        change(index, images[index] * _shade(numbers(sample.shade)[index], images.shape[-2], images.shape[-1]))
    if len(index := chosen(sample.blur[:, 0])):
        change(index, motion_blur(images[index], numbers(sample.blur)[index]))
    for factor in np.unique(sample.shrink[sample.shrink > 1]):
        index = chosen(sample.shrink == factor)
        change(index, low_resolution(images[index], int(factor)))
    for side in np.unique(sample.lattice):
        index = chosen(sample.lattice == side)
        part = images[index] if side == 0 else resized(images[index], int(side), int(side))
        part = _recorded(part, numbers(sample.noise)[index], numbers(sample.quality.astype(float))[index], generator)
        change(index, part if side == 0 else resized(part, *images.shape[-2:]))
    if len(index := chosen(sample.grey)):
        weights = torch.tensor(TO_YCC[0], device=device).view(1, 3, 1, 1)
        images.index_copy_(0, index, (images[index] * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1).contiguous())
    return images


def _recorded(images: Tensor, noise: Tensor, quality: Tensor, generator: torch.Generator | None) -> Tensor:
    """Add noise of ``noise`` ``[N]`` grey levels and the losses of JPEG at ``quality`` ``[N]``; 0 leaves out either."""
    if len(index := noise.nonzero()[:, 0]):
        part = images[index]
        grain = torch.randn(part.shape, generator=generator, device=images.device)
        images = images.index_copy(0, index, part + grain * noise[index][:, None, None, None])
    images = images.clamp(0, 255)
    if len(index := quality.nonzero()[:, 0]):
        images = images.index_copy(0, index, compress(images[index], quality[index]))
    return images


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """Resample images: averaged when shrinking, else interpolated."""
    return F.interpolate(images, (height, width), mode="bilinear", align_corners=False, antialias=True)


def _shade(shade: Tensor, height: int, width: int) -> Tensor:
    """Return factors ``[N, 1, H, W]`` that change from dark to bright across the frame."""
    x = torch.linspace(-1, 1, width, device=shade.device)
    y = torch.linspace(-1, 1, height, device=shade.device)
    along = shade[:, 0, None, None] * x + shade[:, 1, None, None] * y[:, None]
    return (1 + shade[:, 2, None, None] * along)[:, None]


def motion_blur(images: Tensor, blur: Tensor) -> Tensor:
    """Blur each image along a line; ``blur`` ``[N, 2]`` holds the length in pixels (at most `BLUR`) and the angle."""
    count, channels = images.shape[:2]
    steps = torch.arange(BLUR, device=images.device) - (BLUR - 1) / 2
    angle = blur[:, 1] * (math.pi / 180)
    dx, dy = angle.cos()[:, None, None], angle.sin()[:, None, None]
    along = steps[None, None, :] * dx + steps[None, :, None] * dy
    across = steps[None, None, :] * dy - steps[None, :, None] * dx
    kernel = (1 - across.abs()).clamp(min=0) * (along.abs() <= blur[:, 0, None, None] / 2)
    kernel = kernel / kernel.sum((1, 2), keepdim=True)
    padded = F.pad(images, (BLUR // 2,) * 4, mode="replicate").flatten(0, 1)[None]
    weights = kernel.repeat_interleave(channels, 0)[:, None]
    return F.conv2d(padded, weights, groups=count * channels)[0].unflatten(0, (count, channels))


def low_resolution(images: Tensor, factor: int) -> Tensor:
    """Shrink images and enlarge them again, like a small target in its search window."""
    small = F.interpolate(images, [max(n // factor, 1) for n in images.shape[-2:]], mode="area")
    return F.interpolate(small, images.shape[-2:], mode="bilinear", align_corners=False)


def compress(images: Tensor, quality: Tensor) -> Tensor:
    """Apply JPEG's losses at ``quality`` ``[N]`` of 1..100, without chroma subsampling: ``[N, 3, H, W]`` of 0..255."""
    height, width = images.shape[-2:]
    device = images.device
    padded = F.pad(images, (0, -width % 8, 0, -height % 8), mode="replicate")
    to_ycc = torch.tensor(TO_YCC, device=device)
    ycc = torch.einsum("ij,njhw->nihw", to_ycc, padded)
    ycc[:, 0] -= 128
    scale = torch.where(quality < 50, 5000 / quality.clamp(min=1), 200 - 2 * quality) / 100
    tables = torch.tensor([LUMINANCE, CHROMINANCE, CHROMINANCE], dtype=torch.float32, device=device)
    tables = (tables * scale[:, None, None, None]).round().clamp(1, 255)[:, :, None, None]
    rows = torch.arange(8, device=device)
    cosines = torch.cos((2 * rows[None, :] + 1) * rows[:, None] * math.pi / 16) / 2
    cosines[0] /= math.sqrt(2)
    # [N, 3, H/8, W/8, 8, 8]
    blocks = ycc.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-3, -2)
    frequencies = cosines @ blocks @ cosines.T
    kept = (frequencies / tables).round() * tables
    back = (cosines.T @ kept @ cosines).transpose(-3, -2).flatten(-4, -3).flatten(-2)
    back[:, 0] += 128
    rgb = torch.einsum("ij,njhw->nihw", torch.linalg.inv(to_ycc), back)
    return rgb[..., :height, :width].clamp(0, 255)
