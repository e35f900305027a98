# SPDX-License-Identifier: Apache-2.0
"""Room for large images in the memory that Fast DDS shares between processes; see docs/troubleshooting.md."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

PROFILE = "fastdds_large_images.xml"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - it is only asked how much is free

NEEDED_BYTES = 2**29
"""The profile is used where so much shared memory is free; with Docker's 64 MiB processes would crash."""

OWN_CHOICES = (
    "FASTDDS_DEFAULT_PROFILES_FILE",
    "FASTRTPS_DEFAULT_PROFILES_FILE",
    "FASTDDS_BUILTIN_TRANSPORTS",
    "SKIP_DEFAULT_XML",
    "SKIP_DEFAULT_XML_FILE",
)
OWN_FILES = ("DEFAULT_FASTDDS_PROFILES.xml", "DEFAULT_FASTRTPS_PROFILES.xml")
OLD_NAMES = ("humble", "iron", "jazzy")
"""Distributions whose Fast DDS knows the variable as FASTRTPS_...."""


def give_room_for_images(environment: MutableMapping[str, str] = os.environ, folder: Path | None = None) -> Path | None:
    """Have this process's Fast DDS use the package's profile, unless the user has set another; before rclpy.init.

    Other middleware ignores it.

    :param folder: where the program was started; None for the working directory.
    :returns: the profile, None if it is not used.
    """
    here = folder or Path.cwd()
    if any(name in environment for name in OWN_CHOICES) or any((here / name).exists() for name in OWN_FILES):
        return None
    profile = _find(environment)
    if profile is None or _free(SHARED_MEMORY) < NEEDED_BYTES:
        return None
    environment[_variable(environment)] = str(profile)
    return profile


def export_line(environment: Mapping[str, str] = os.environ) -> str:
    """Return the shell command that gives a camera driver's Fast DDS room for large images; empty without profile."""
    profile = _find(environment)
    return f"export {_variable(environment)}={profile}" if profile else ""


def large_images_remedy(environment: Mapping[str, str] = os.environ) -> str:
    """Return what to do where large images are lost between processes; empty for other middleware than Fast DDS."""
    import rclpy

    line = export_line(environment)
    if not line or "fastrtps" not in rclpy.get_rmw_implementation_identifier():
        return ""
    return f"start the camera driver after `{line}` (docs/troubleshooting.md), or set image_transport to compressed"


def _variable(environment: Mapping[str, str]) -> str:
    """Return the variable that names the profile in this distribution."""
    return OWN_CHOICES[1] if environment.get("ROS_DISTRO", "") in OLD_NAMES else OWN_CHOICES[0]


def _find(environment: Mapping[str, str]) -> Path | None:
    """Return the profile's path, in the checkout or where the package is installed."""
    prefixes = environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    folders = [Path(__file__).resolve().parents[2], *(Path(p) / "share" / "dimp_ros" for p in prefixes if p)]
    return next((f / "config" / PROFILE for f in folders if (f / "config" / PROFILE).is_file()), None)


def _free(folder: Path) -> int:
    """Return how many bytes are free on a file system; 0 where it is not there."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return 0
    return status.f_bavail * status.f_frsize
