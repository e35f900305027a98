# SPDX-License-Identifier: Apache-2.0
"""Image files of a folder: listing and reading."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.files.inputs import opencv_path
from dimp_ros.files.outputs import write_bytes

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def list_images(folder: Path) -> list[Path]:
    """Return the images directly in `folder`, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def read_image(path: Path, flags: int = cv2.IMREAD_COLOR) -> NDArray[np.uint8]:
    """Read an image as HxWx3 uint8 BGR, or with OpenCV's ``flags``; raise ValueError if it cannot be read."""
    image = cv2.imread(opencv_path(path), flags)
    if image is None:
        raise ValueError(f"cannot read the image {path}: missing, damaged, or a format this OpenCV lacks")
    return np.asarray(image, dtype=np.uint8)


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image, HxWx3 uint8 BGR or HxW grey, in the format of its suffix; raise OSError if that fails."""
    done, data = cv2.imencode(path.suffix, image)
    if not done:
        raise OSError(f"{path}: an image of {list(image.shape)} cannot be stored as {path.suffix}")
    write_bytes(path, data.tobytes())
