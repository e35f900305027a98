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
    """A request that is refused; the text is sent to the client."""


class Gate:
    """Checks the headers of requests, and tokens.

    A page of another site in the operator's browser can send requests here, and read the answers if it binds its own
    name to this machine's address (DNS rebinding). Its requests have its name as Origin, and after rebinding as Host.
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
        """Whether clients must send a token first."""
        return bool(self._token)

    def admits(self, token: str) -> bool:
        """Return whether ``token`` is correct, in constant time."""
        return hmac.compare_digest(token.encode(), self._token)

    def check_host(self, host: str | None) -> None:
        """Check that a request was addressed to this machine, by address or by a known name.

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
        raise AccessDenied(
            f"{name} is not a known name of this machine; add it to the console's parameter allowed_hosts"
        )

    def check_origin(self, origin: str | None, host: str | None) -> None:
        """Check that a request comes from a page of this server.

        :param origin: the Origin header; browsers send it with every WebSocket.
        :raises AccessDenied: for other pages, and without the header.
        """
        self.check_host(host)
        try:
            parts = urlsplit(origin or "")
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or parts.netloc.lower() != (host or "").lower():
            raise AccessDenied("only the console's own page may connect; open it at this address")


class Allowance:
    """A token bucket.

    :param rate: units per second. :param burst: capacity in units. :param clock: seconds.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left, self._at = burst, clock()

    def take(self, units: float = 1.0) -> bool:
        """Take units and return True if enough are left; otherwise take none and return False."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < units:
            return False
        self._left -= units
        return True
