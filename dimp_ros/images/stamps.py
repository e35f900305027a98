# SPDX-License-Identifier: Apache-2.0
"""Stamped images: a message with its reception time, and stamps in nanoseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from builtin_interfaces.msg import Time
    from sensor_msgs.msg import CompressedImage, Image

    StampedImage: TypeAlias = Image | CompressedImage


NANOSECONDS = 1_000_000_000


def stamp_ns(stamp: Time) -> int:
    """Return a time message as nanoseconds."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)
