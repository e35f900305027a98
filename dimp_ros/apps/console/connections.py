# SPDX-License-Identifier: Apache-2.0
"""TCP connections of the console; those that were not admitted are limited in number and time."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dimp_ros.apps.console.access import Allowance

STRANGER_SECONDS = 5.0
"""A connection that was not admitted is closed after this time; browsers open another if they need one."""

BACKLOG = 128
"""Connections that wait to be accepted; asyncio accepts so many at once."""

MAX_STRANGERS = 2 * BACKLOG
"""Largest number of connections that were not admitted; one more closes another one, see `Connections`. Those
accepted at once must not displace those accepted before, some of which have ended unnoticed."""

OF_A_BROWSER = 8
"""A browser opens six connections to a server at a time, and a WebSocket: so many are no reason to prefer others."""

BYTES_A_SECOND, BYTES_IN_RESERVE = 32_768.0, 131_072.0
"""Limit of what a client may send: above the limit of messages, and low enough for frames of any kind."""


@dataclass
class _Stranger:
    """A connection that was not admitted: its network (/24 or /64), its address, and whether it has sent anything."""

    network: str
    address: str
    silent: bool = True


class Connections:
    """Creates the protocol of each connection, and closes connections of strangers if they are too many or too old.

    A stranger has not sent the token or, where none is needed, a message, whatever else it sent: nothing, a part of a
    request, requests for files, or a WebSocket handshake. Admitted connections are never closed here.

    If there are too many, one is closed of the network that has most of them, and there of the address that has most,
    unless these are no more than a browser opens: the oldest that is silent, or else the oldest.

    :param make: returns aiohttp's protocol for one connection.
    """

    def __init__(self, make: Callable[[], asyncio.Protocol]) -> None:
        self._make = make
        self._strangers: dict[asyncio.BaseTransport, _Stranger] = {}  # oldest first
        self._closed = False

    def __call__(self) -> asyncio.Protocol:
        """Return the protocol of a new connection."""
        return _Connection(self, self._make())

    def admit(self, transport: asyncio.BaseTransport | None) -> None:
        """Stop counting a connection: it was admitted, or has ended."""
        if transport is not None:
            self._strangers.pop(transport, None)

    def close(self) -> None:
        """Close all connections of strangers, and those that are yet to be made."""
        self._closed = True
        for transport in list(self._strangers):
            self._close(transport)

    def heard(self, transport: asyncio.BaseTransport | None) -> None:
        """Note that a connection has sent something."""
        if transport is not None and (stranger := self._strangers.get(transport)) is not None:
            stranger.silent = False

    def opened(self, transport: asyncio.Transport) -> None:
        """Count a new connection; if there are too many, close one."""
        if self._closed:
            transport.abort()
            return
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if peer else ""
        if len(self._strangers) >= MAX_STRANGERS:
            self._close(self._least_welcome())
        self._strangers[transport] = _Stranger(_network(address), address)
        asyncio.get_running_loop().call_later(STRANGER_SECONDS, self._close, transport)

    def _least_welcome(self) -> asyncio.BaseTransport:
        """Return the connection to close."""
        pool = self._strangers
        busiest = _busiest(one.network for one in pool.values())
        pool = {key: one for key, one in pool.items() if busiest in ("", one.network)}
        busiest = _busiest(one.address for one in pool.values())
        pool = {key: one for key, one in pool.items() if busiest in ("", one.address)}
        return next((key for key, one in pool.items() if one.silent), next(iter(pool)))

    def _close(self, transport: asyncio.BaseTransport) -> None:
        if self._strangers.pop(transport, None) is not None and isinstance(transport, asyncio.Transport):
            transport.abort()


class _Connection(asyncio.Protocol):
    """Forwards everything to aiohttp's protocol, and limits the received data."""

    def __init__(self, connections: Connections, inner: asyncio.Protocol) -> None:
        self._connections, self._inner = connections, inner
        self._bytes = Allowance(BYTES_A_SECOND, BYTES_IN_RESERVE)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._inner.connection_made(transport)
        self._connections.opened(transport)

    def data_received(self, data: bytes) -> None:
        self._connections.heard(self._transport)
        if self._bytes.take(len(data)):
            self._inner.data_received(data)
        elif self._transport is not None:
            self._transport.abort()

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.admit(self._transport)
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


def _network(address: str) -> str:
    """Return the network of an address: one machine may have many addresses there."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return str(ipaddress.ip_network((ip, 24 if ip.version == 4 else 64), strict=False))


def _busiest(names: Iterable[str]) -> str:
    """Return the name that occurs most often; empty if that is no more than a browser does."""
    name, count = Counter(names).most_common(1)[0]
    return name if count > OF_A_BROWSER else ""
