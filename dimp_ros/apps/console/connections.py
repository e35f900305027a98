# SPDX-License-Identifier: Apache-2.0
"""TCP connections of the console; those that were not admitted are limited in number and time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from dimp_ros.apps.console.access import Allowance

STRANGER_SECONDS = 5.0
"""A connection that was not admitted is closed after this time; browsers open another if they need one."""

BACKLOG = 128
"""Connections that wait to be accepted; asyncio accepts so many at once."""

MAX_STRANGERS = 2 * BACKLOG
"""Largest number of connections that were not admitted; one more closes the oldest of the busiest address. Those
accepted at once must not displace those accepted before, some of which have ended unnoticed."""

BYTES_A_SECOND, BYTES_IN_RESERVE = 32_768.0, 131_072.0
"""Limit of what a client may send: above the limit of messages, and low enough for frames of any kind."""


class Connections:
    """Creates the protocol of each connection, and closes connections of strangers if they are too many or too old.

    A stranger has not sent the token or, where none is needed, a message, whatever else it sent: nothing, a part of a
    request, requests for files, or a WebSocket handshake. Admitted connections are never closed here.

    :param make: returns aiohttp's protocol for one connection.
    """

    def __init__(self, make: Callable[[], asyncio.Protocol]) -> None:
        self._make = make
        self._strangers: dict[asyncio.BaseTransport, str] = {}  # oldest first; the address of each
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

    def opened(self, transport: asyncio.Transport) -> None:
        """Count a new connection; if there are too many, close the oldest of the address with most."""
        if self._closed:
            transport.abort()
            return
        peer = transport.get_extra_info("peername")
        self._strangers[transport] = str(peer[0]) if peer else ""
        asyncio.get_running_loop().call_later(STRANGER_SECONDS, self._close, transport)
        if len(self._strangers) > MAX_STRANGERS:
            address, _ = Counter(self._strangers.values()).most_common(1)[0]
            self._close(next(one for one, its in self._strangers.items() if its == address))

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
