# SPDX-License-Identifier: Apache-2.0
"""Bytes to and from a ground station or an autopilot: UDP, TCP, serial. No MAVLink here."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import struct
import sys
import time
from typing import Any, Protocol

MAX_PEERS = 8
PEER_SECONDS = 30.0
"""A UDP peer that was not heard for so long gets nothing more."""

DATAGRAM_BYTES = 2048
"""Longer datagrams are cut: a MAVLink 2 message has at most 280 bytes."""

CONNECT_SECONDS = 2.0
SILENT_SECONDS = 5.0
"""A TCP client without a valid message for so long makes room for one that waits; a stream is closed that takes no byte
for so long, and the system sends none again that were not acknowledged for so long."""

SEND_SECONDS = 0.2
"""A stream that takes no bytes for so long is closed."""

DISCARD, DELIVER = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)
"""Values of SO_LINGER: what becomes of bytes that wait when a socket is closed."""

MOST_WAITING = 512
"""Bytes that may wait in a stream, about eight messages: more are not sent but dropped, as in UDP."""

JAM_SECONDS = 0.05
"""More may wait for so long: some USB devices count a whole buffer for each message under way."""


class Transport(Protocol):
    """A connection that can be waited for."""

    datagrams: bool
    """Whether each `read` returns whole messages."""

    taken: bool
    """Whether the system took the bytes of the last `write`: there is a peer, and a way to it that is not too slow."""

    def read(self, timeout: float) -> bytes:
        """Return the next bytes, or nothing after ``timeout`` seconds.

        :raises OSError: when the connection is broken.
        """
        ...

    def confirm(self) -> None:
        """Accept the sender of the last `read`: it sent a valid message, and shall get ours."""

    def write(self, data: bytes) -> None:
        """Send bytes; the name is what pymavlink calls.

        :raises OSError: when the connection is broken.
        """

    def close(self, deliver: bool = True) -> None:
        """Close the connection.

        :param deliver: what waits in the system is still sent; otherwise it is discarded, since it is old.
        """


def open_transport(where: str, baud: int) -> Transport:
    """Open ``udpin:HOST:PORT``, ``udpout:HOST:PORT``, ``tcp:HOST:PORT``, ``tcpin:HOST:PORT`` or a serial device.

    :raises OSError: if it cannot be opened (yet). :raises ValueError: for text that is none of these.
    """
    if is_serial(where):
        return SerialTransport(where, baud)
    host, port = split_address(where)
    kind = where.partition(":")[0]
    if kind in ("udpin", "udpout"):
        return UdpTransport(host, port, listen=kind == "udpin")
    return TcpTransport(host, port, listen=kind == "tcpin")


def is_serial(where: str) -> bool:
    """Return whether a connection is a serial device."""
    return where.startswith("/dev/")


def split_address(where: str) -> tuple[str, int]:
    """Return host and port of ``KIND:HOST:PORT``; IPv6 addresses in brackets.

    :raises ValueError: with what was received and what is allowed.
    """
    kind, _, address = where.partition(":")
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if kind not in ("udpin", "udpout", "tcp", "tcpin") or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(
            f"connection is {where!r}, but must be udpin:HOST:PORT, udpout:HOST:PORT, tcp:HOST:PORT or tcpin:HOST:PORT "
            "with a port from 1 to 65535, or a serial device such as /dev/ttyAMA0"
        )
    return host, int(port)


class UdpTransport:
    """Datagrams to one address, or, listening, to those that were heard of late.

    :param listen: bind ``host`` and ``port``, and answer peers that sent a valid message; otherwise send to them.
    """

    datagrams = True

    def __init__(self, host: str, port: int, *, listen: bool) -> None:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        self._socket = socket.socket(family, kind, proto)
        self._destination = None if listen else address
        self._peers: dict[Any, float] = {}
        self._last: Any = None
        self.taken = False
        try:
            if listen:
                self._socket.bind(address)
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise

    def read(self, timeout: float) -> bytes:
        """Return a datagram; what an unreachable destination answers is no error."""
        if not select.select([self._socket], [], [], timeout)[0]:
            return b""
        try:
            data, self._last = self._socket.recvfrom(DATAGRAM_BYTES)
        except (BlockingIOError, ConnectionRefusedError):
            return b""
        return data if self._destination is None or self._last[:2] == self._destination[:2] else b""

    def confirm(self) -> None:
        """Remember the sender; beyond `MAX_PEERS`, the one that was silent longest is forgotten."""
        if self._destination is None and self._last is not None:
            self._peers[self._last] = time.monotonic()
            while len(self._peers) > MAX_PEERS:
                del self._peers[min(self._peers, key=self._peers.__getitem__)]

    def write(self, data: bytes) -> None:
        """Send to the destination, or to each peer heard in the last `PEER_SECONDS`; lost datagrams are no error."""
        recent = [peer for peer, heard in self._peers.items() if time.monotonic() - heard <= PEER_SECONDS]
        self.taken = False
        for address in recent if self._destination is None else [self._destination]:
            with contextlib.suppress(OSError):
                self._socket.sendto(data, address)
                self.taken = True

    def close(self, deliver: bool = True) -> None:
        """Close the socket: datagrams do not wait."""
        self._socket.close()


class TcpTransport:
    """A byte stream to a server, or, listening, to one client at a time: see `SILENT_SECONDS`.

    What waits in the system when the stream ends, as over a cable that is out, is discarded, also if the process is
    killed: otherwise the system would send it long after it was due.

    :raises OSError: if nobody answers, or the address cannot be bound.
    """

    datagrams = False

    def __init__(self, host: str, port: int, *, listen: bool) -> None:
        self._server: socket.socket | None = None
        self._stream: socket.socket | None = None
        self._heard = time.monotonic()
        self.taken = False
        if listen:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            self._server = socket.create_server((host, port), family=family, backlog=1)
        else:
            self._stream = self._prepared(socket.create_connection((host, port), CONNECT_SECONDS))
            self._backlog = Backlog(self._stream.fileno())

    @staticmethod
    def _prepared(stream: socket.socket) -> socket.socket:
        stream.settimeout(SEND_SECONDS)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SILENT_SECONDS * 1e3))
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, DISCARD)
        return stream

    def read(self, timeout: float) -> bytes:
        """Return bytes of the stream; a client that leaves or stays silent makes room for the next."""
        vacant = self._stream is None or time.monotonic() - self._heard > SILENT_SECONDS
        waiting = [one for one in (self._stream, self._server if vacant else None) if one is not None]
        ready = select.select(waiting, [], [], timeout)[0]
        if self._server is not None and self._server in ready:
            if self._stream is not None:
                self._stream.close()
            self._stream, self._heard = self._prepared(self._server.accept()[0]), time.monotonic()
            self._backlog = Backlog(self._stream.fileno())
            return b""
        if self._stream is None or not ready:
            return b""
        data = self._stream.recv(DATAGRAM_BYTES)
        if not data:
            self._drop(ConnectionResetError("the other side closed the connection"))
        return data

    def confirm(self) -> None:
        """Note that the client sends valid messages."""
        self._heard = time.monotonic()

    def write(self, data: bytes) -> None:
        """Send bytes; without a client, and while `MOST_WAITING` older ones are not acknowledged, they are dropped."""
        self.taken = False
        if self._stream is not None:
            try:
                if not self._backlog.has_room():
                    return
                self._stream.sendall(data)
            except OSError as error:
                self._drop(error)
        self.taken = self._stream is not None

    def _drop(self, error: OSError) -> None:
        """End the stream; a server waits for the next client, a client is broken."""
        if self._stream is not None:
            self._stream.close()
        if self._server is None:
            raise error
        self._stream = None

    def close(self, deliver: bool = True) -> None:
        """Close all sockets."""
        if self._stream is not None and deliver:
            with contextlib.suppress(OSError):  # it may be closed already
                self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, DELIVER)
        for one in (self._stream, self._server):
            if one is not None:
                one.close()


class Backlog:
    """Whether bytes may be added to a stream whose system queue tells how many wait.

    :param descriptor: of the stream.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._least, self._since = 0, math.inf  # fewest bytes of the present jam, and since when there were so few
        self._begun = math.inf  # when it began

    def has_room(self) -> bool:
        """Return whether `MOST_WAITING` bytes at most wait.

        :raises OSError: if there are more, and none has left for `SILENT_SECONDS`.
        """
        waiting, now = self._waiting(), time.monotonic()
        if waiting <= MOST_WAITING:
            self._begun = math.inf
            return True
        if self._begun == math.inf:
            self._begun, self._least, self._since = now, waiting, now
        if now - self._begun < JAM_SECONDS:
            return True
        if waiting < self._least:
            self._least, self._since = waiting, now
        if now - self._since > SILENT_SECONDS:
            raise TimeoutError(f"the other side has taken no byte for {SILENT_SECONDS:g} s")
        return False

    def _waiting(self) -> int:
        """Return how many bytes wait, of TCP those included that are not acknowledged; 0 where that is not known."""
        with contextlib.suppress(ImportError, OSError):
            import fcntl
            import termios

            return int.from_bytes(fcntl.ioctl(self._descriptor, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        return 0


class SerialTransport:
    """A serial device.

    :raises OSError: if it cannot be opened, and without pyserial, with the remedy.
    """

    datagrams = False

    def __init__(self, device: str, baud: int) -> None:
        try:
            import serial
        except ImportError as error:
            raise OSError("serial devices need the Python package pyserial: pip install pyserial") from error
        self.taken = True
        self._port = serial.Serial(device, baud, timeout=0, write_timeout=SEND_SECONDS, exclusive=True)
        self._backlog = Backlog(self._port.fileno())

    def read(self, timeout: float) -> bytes:
        """Return what has come."""
        if not select.select([self._port.fileno()], [], [], timeout)[0]:
            return b""
        data = bytes(self._port.read(DATAGRAM_BYTES))
        if not data:
            raise ConnectionResetError("the device is gone")
        return data

    def confirm(self) -> None:
        """Nothing to do: a line has one peer."""

    def write(self, data: bytes) -> None:
        """Send bytes, unless `MOST_WAITING` older ones wait; a line that takes none for `SEND_SECONDS` is broken."""
        self.taken = self._backlog.has_room()
        if self.taken:
            self._port.write(data)

    def close(self, deliver: bool = True) -> None:
        """Close the device."""
        if not deliver:
            with contextlib.suppress(Exception):  # it may be gone, for which pyserial has several errors
                self._port.reset_output_buffer()
        self._port.close()
