# SPDX-License-Identifier: Apache-2.0
"""Access to the console: Host and Origin of requests, the token, and rate limits."""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from dimp_ros.apps.console.settings import ConsoleSettings

_AUTHORITY = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]{2,45})\]|(?P<name>[a-z0-9._-]{1,253}))(?::\d{1,5})?")


class AccessDenied(Exception):
    """A request that is turned away; the text is for the one who asked."""


class Gate:
    """Decides on requests by their headers, and on tokens.

    A page of another site that the operator's browser has open can send requests here, and, by binding its own name
    to this machine's address (DNS rebinding), even read the answers. Its requests carry its name: as Origin, and
    after rebinding as Host.
    """

    def __init__(self, settings: ConsoleSettings) -> None:
        self._token = settings.token.encode()
        self._loopback_only = settings.is_loopback
        self._names = {"localhost", *(name.lower() for name in settings.allowed_hosts)}
        if not self._loopback_only:
            own = socket.gethostname().lower()
            self._names |= {own, f"{own}.local"}

    @property
    def needs_token(self) -> bool:
        """Whether anybody must show a token first."""
        return bool(self._token)

    def admits(self, token: str) -> bool:
        """Return whether ``token`` is the right one; takes as long for any that is not."""
        return hmac.compare_digest(token.encode(), self._token)

    def check_host(self, host: str | None) -> None:
        """Let through requests that were addressed to this machine, by address or by a name that is known.

        :param host: the Host header.
        :raises AccessDenied: with the remedy.
        """
        match = _AUTHORITY.fullmatch((host or "").lower())
        if match is None:
            raise AccessDenied("the request has no valid Host header")
        name = match["v6"] or match["name"]
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            if name in self._names:
                return
        else:
            if address.is_loopback or not self._loopback_only or name in self._names:
                return
        raise AccessDenied(f"this console does not know itself as {name}; add that to its parameter allowed_hosts")

    def check_origin(self, origin: str | None, host: str | None) -> None:
        """Let through requests of pages that this very server has served.

        :param origin: the Origin header; browsers send it with every WebSocket.
        :raises AccessDenied: for every other page, and without the header.
        """
        self.check_host(host)
        try:
            parts = urlsplit(origin or "")
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or parts.netloc.lower() != (host or "").lower():
            raise AccessDenied("only the console's own page may connect; open it at this very address")


class Allowance:
    """A token bucket.

    :param rate: units a second. :param burst: units in reserve at most. :param clock: seconds.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left, self._at = burst, clock()

    def take(self, units: float = 1.0) -> bool:
        """Take units and return True, if there are so many."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < units:
            return False
        self._left -= units
        return True
