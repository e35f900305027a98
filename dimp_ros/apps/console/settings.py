# SPDX-License-Identifier: Apache-2.0
"""The console's parameters and their checks."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dimp_ros.ros_utils.config_dataclass import check_settings, parameter_rows, setting
from dimp_ros.ros_utils.parameter_table import Parameter
from dimp_ros.ros_utils.secrets import read_secret

MIN_TOKEN = 16
"""Least length of a token, the only protection against the network."""

MIN_DISTINCT = 6
"""Least number of distinct characters of a token."""


def _setting(
    default: Any, text: str, range: tuple[float, float] | None = None, *, choices: tuple[str, ...] = ()
) -> Any:
    return setting(default, text, range, choices=choices, at_start=True)


@dataclass(frozen=True, repr=False)  # the token must not appear in a log
class ConsoleSettings:
    """Parameters of the console. Validated at construction."""

    # Web server
    host: str = _setting("127.0.0.1", "Address that the page is served on; all but loopback addresses need a token.")
    port: int = _setting(8080, "Port of the page; 0 takes a free one, which is logged.", (0, 65535))
    token: str = _setting("", "Secret that a person must enter to see or do anything; token_file is safer.")
    token_file: str = _setting("", "Path of a file that holds the token, readable for its owner only.")
    allowed_hosts: tuple[str, ...] = _setting(
        (), "Names of this machine in browsers' address bars, besides addresses and localhost."
    )
    max_clients: int = _setting(10, "Largest number of browsers at the same time.", (1, 100))
    # Tracker and camera
    tracker: str = _setting("tracker_node", "Name of the tracker's node.")
    image_transport: str = _setting(
        "raw",
        "`raw` subscribes image, `compressed` image/compressed; remapping image moves both.",
        choices=("raw", "compressed"),
    )
    max_megapixels: float = _setting(50.0, "Compressed images larger than this are not shown.", (0.01, 1000.0))
    request_timeout: float = _setting(
        15.0, "How long a request waits for the tracker's answer, in seconds; then a start is taken back.", (0.1, 600.0)
    )
    # Display
    max_rate: float = _setting(20.0, "Largest rate of the images that a browser gets, 1/s.", (0.5, 60.0))
    max_width: int = _setting(1280, "Largest width of the images that a browser gets, in pixels.", (160, 4096))
    pair_seconds: float = _setting(
        0.5,
        "How long an image may be held back, in seconds of stamps, to be shown with its own boxes.",
        (0.0, 5.0),
    )
    stale_after: float = _setting(
        1.0, "Seconds without an image, or without a state of the targets, after which that is reported.", (0.1, 60.0)
    )
    freeze_seconds: float = _setting(1.0, "How long the image may be frozen while a box is drawn on it.", (0.0, 30.0))
    client_timeout: float = _setting(
        10.0, "Seconds without an acknowledgement after which a browser is disconnected.", (0.5, 120.0)
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.token_file:
            if self.token:
                raise ValueError("token and token_file are both set: keep token_file only")
            object.__setattr__(self, "token", read_secret("token_file", Path(self.token_file)))
        if not self.is_loopback and not self.token:
            raise ValueError(
                f"host is {self.host!r}, which others can reach, and there is no token: set token_file, or serve on "
                "127.0.0.1 and reach it through ssh -L"
            )
        if self.token:
            _check_token(self.token)

    @property
    def is_loopback(self) -> bool:
        """Whether the page can be reached from this machine only.

        :raises ValueError: for a host that is neither an address nor localhost.
        """
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            raise ValueError(
                f"host is {self.host!r}, but must be an address of this machine such as 127.0.0.1, localhost, or "
                "0.0.0.0 for all"
            ) from None


def _check_token(token: str) -> None:
    """Refuse a token that is too short or has too few distinct characters.

    :raises ValueError: with the remedy, without the token.
    """
    distinct = len(set(token))
    if len(token) < MIN_TOKEN or distinct < MIN_DISTINCT or not token.isascii() or not token.isprintable():
        raise ValueError(
            f"the token must have {MIN_TOKEN} printable ASCII characters at least, {MIN_DISTINCT} of them distinct; "
            f"this one has {len(token)}, {distinct} distinct; make one with: openssl rand -hex 16"
        )
    if token != token.strip():
        raise ValueError("the token begins or ends with a space; make one with: openssl rand -hex 16")


def console_parameters() -> tuple[Parameter, ...]:
    """Return the table of the node's parameters."""
    return parameter_rows(ConsoleSettings)
