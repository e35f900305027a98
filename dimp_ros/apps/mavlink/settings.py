# SPDX-License-Identifier: Apache-2.0
"""Parameters of the MAVLink camera."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dimp_ros.apps.mavlink.transport import is_serial, split_address
from dimp_ros.ros_utils.config_dataclass import check_settings, parameter_rows, setting
from dimp_ros.ros_utils.parameter_table import Parameter
from dimp_ros.ros_utils.secrets import read_secret

STEER = ("none", "vehicle", "gimbal")

MIN_PASSPHRASE = 8
"""Least length of the passphrase for signing: whoever guesses it may steer."""

MAX_URI = 159
"""Longest URI of a video stream, characters: VIDEO_STREAM_INFORMATION has no room for more."""


def _setting(default: Any, text: str, range: tuple[float, float] | None = None, choices: tuple[str, ...] = ()) -> Any:
    return setting(default, text, range, choices=choices, at_start=True)


@dataclass(frozen=True, repr=False)
class MavlinkSettings:
    """How the camera is reached, who it is, what it talks to, and what it steers. Checked when made."""

    connection: str = _setting(
        "udpout:127.0.0.1:14550",
        "Where the ground station or the autopilot is: `udpout:HOST:PORT`, `udpin:HOST:PORT`, `tcp:HOST:PORT`, "
        "`tcpin:HOST:PORT`, or a serial device such as `/dev/ttyAMA0`.",
    )
    baud: int = _setting(921600, "Baud rate of a serial device.", (1200, 4000000))
    system_id: int = _setting(1, "MAVLink system id; that of the vehicle the camera is on.", (1, 255))
    component_id: int = _setting(100, "MAVLink component id: 100 to 105 are cameras.", (100, 105))
    signing_key_file: str = _setting(
        "",
        "Path of a file with the passphrase for MAVLink 2 signing, readable for its owner only; unsigned messages "
        "are ignored then. Empty: no signing.",
    )
    tracker: str = _setting("tracker_node", "Name of the tracker's node.")
    target_id: str = _setting("mavlink", "Name of the target that the ground station points at.")
    request_timeout: float = _setting(
        12.0, "How long a command waits for the tracker's answer, in seconds, before it is rejected.", (0.1, 600.0)
    )
    video_delay: float = setting(
        0.0,
        "Seconds from an image to its display at the ground station (glass to glass). A box or point is applied to the "
        "image that was on display when the command arrived.",
        (0.0, 60.0),
    )
    status_rate: float = _setting(
        5.0,
        "CAMERA_TRACKING_IMAGE_STATUS messages a second until the ground station asks for another rate.",
        (0.1, 50.0),
    )
    steer: str = _setting(
        "none",
        "What the velocities on cmd_vel move: nothing, the vehicle in GUIDED or OFFBOARD mode, or its gimbal.",
        choices=STEER,
    )
    setpoint_rate: float = _setting(20.0, "Setpoints or gimbal rates a second.", (10.0, 50.0))
    command_timeout: float = _setting(
        0.25, "A velocity that was sent longer ago than this is zero, in seconds.", (0.1, 1.0)
    )
    gimbal_manager: int = _setting(
        1,
        "MAVLink component id of the gimbal manager: 1, the autopilot, or 154 for a gimbal that is its own.",
        (1, 255),
    )
    gimbal_in_any_mode: bool = _setting(
        False, "The gimbal is turned in every mode, armed or not; otherwise only where the vehicle could be steered."
    )
    vendor: str = _setting("dimp_ros", "Vendor name in CAMERA_INFORMATION, 32 characters at most.")
    model: str = _setting("DiMP tracker", "Model name in CAMERA_INFORMATION, 32 characters at most.")
    stream_uri: str = _setting(
        "", "URI of the camera's video stream for the ground station, such as `rtsp://10.0.0.2/live`. Empty: none."
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if not is_serial(self.connection):
            split_address(self.connection)
        for name in ("vendor", "model"):
            value = getattr(self, name)
            if len(value.encode()) > 32:
                raise ValueError(f"{name} is {value!r}, {len(value.encode())} bytes long; it must have 32 at most")
        if len(self.stream_uri.encode()) > MAX_URI:
            raise ValueError(f"stream_uri has {len(self.stream_uri.encode())} bytes; it must have {MAX_URI} at most")

    def signing_key(self) -> bytes | None:
        """Return the 32-byte key for signing: SHA-256 of the passphrase, as ground stations make it; None for none.

        :raises ValueError: if `read_secret` refuses the file, or the passphrase is too short.
        """
        if not self.signing_key_file:
            return None
        passphrase = read_secret("signing_key_file", Path(self.signing_key_file))
        if len(passphrase) < MIN_PASSPHRASE:
            least = f"the passphrase must have {MIN_PASSPHRASE} characters at least"
            raise ValueError(f"signing_key_file {self.signing_key_file!r}: {least}")
        return hashlib.sha256(passphrase.encode()).digest()


def mavlink_parameters() -> tuple[Parameter, ...]:
    """Return the table of the node's parameters."""
    return parameter_rows(MavlinkSettings)
