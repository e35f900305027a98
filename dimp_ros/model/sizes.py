# SPDX-License-Identifier: Apache-2.0
"""Sizes that the networks are made for. Importing this module does not import torch."""

from __future__ import annotations

STRIDE = 16
"""Crop pixels of a cell of scores and classification features."""

CLOSER_SIZE, CLOSER_CONTEXT = 144, 2.0
"""Side of the box refiner's window in pixels, and in target sizes, sqrt(w * h)."""

POINT_SIZE, POINT_WINDOWS = 224, (1.3, 0.55, 0.22)
"""Side of the windows around a point in pixels, and in units of sqrt(width * height) of the image."""
