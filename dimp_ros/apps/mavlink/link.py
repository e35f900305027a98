# SPDX-License-Identifier: Apache-2.0
"""A MAVLink 2 connection with a thread of its own: receives, reconnects, and bounds what it takes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Container
from enum import Enum
from typing import Any

from dimp_ros.apps.mavlink.transport import Transport, open_transport

INSTALL = "the MAVLink camera needs the Python package pymavlink: pip install pymavlink"

TYPES = frozenset({"COMMAND_LONG", "COMMAND_INT", "HEARTBEAT", "EXTENDED_SYS_STATE"})
"""Messages that are passed on. The others, of which autopilots send hundreds a second, are ignored without a count."""

AUTOPILOT_COMPONENT = 1

MAX_MESSAGES_PER_SECOND = 200.0
"""Of those, at most so many of each `MessageKind` are passed on; the rest is dropped and counted. A ground station
sends some tens."""

BURST_MESSAGES = 400
RECONNECT_SECONDS = 1.0
POLL_SECONDS = 0.05

VERSION_2 = 0xFD
"""First byte of a MAVLink 2 message."""

EPOCH_SECONDS = 1420070400
"""2015-01-01 UTC: signatures count time from there, in units of 10 microseconds."""


def dialect() -> Any:
    """Return pymavlink's MAVLink 2 messages.

    :raises ImportError: without pymavlink, with the remedy.
    """
    try:
        from pymavlink.dialects.v20 import common
    except ImportError as error:
        raise ImportError(f"{INSTALL} ({error})") from error
    return common


def make_codec(
    output: Transport, system: int, component: int, key: bytes | None, heard: dict[Any, int] | None = None
) -> Any:
    """Return pymavlink's encoder and decoder, which sends to ``output``.

    :param key: 32 bytes; then what is sent is signed, and unsigned or wrongly signed messages are bad data.
    :param heard: the time stamp of the newest signed message of each sender, kept up to date: a codec that takes over
        from another one refuses what that one has received.
    """
    stamps: dict[Any, int] = {} if heard is None else heard
    base = dialect().MAVLink

    class Codec(base):  # type: ignore[misc, valid-type]
        def check_signature(self, *arguments: Any) -> bool:
            """Check a signature. A forged message must not move the time stamps that valid ones have to exceed.

            A sender that was not heard before must be at most a minute behind the signing time, which follows the
            clock here: pymavlink's own advances with messages only.
            """
            self.signing.timestamp = max(self.signing.timestamp, signing_time())
            before = dict(stamps)
            valid = bool(super().check_signature(*arguments))
            if not valid:
                stamps.clear()
                stamps.update(before)
            return valid

    codec = Codec(output, srcSystem=system, srcComponent=component)
    codec.robust_parsing = True
    if key is not None:
        codec.signing.secret_key = key
        codec.signing.sign_outgoing = True
        codec.signing.timestamp = signing_time()
        codec.signing.stream_timestamps = stamps
    return codec


def signing_time() -> int:
    """Return the time in the units of a signature, by the clock here."""
    return int((time.time() - EPOCH_SECONDS) * 1e5)


def messages_in(codec: Any, data: bytes, *, whole: bool) -> list[Any]:
    """Return the valid MAVLink 2 messages in bytes.

    :param whole: the bytes are a datagram: a message that is cut off in it must not swallow the next datagram.
    """
    if whole:
        codec.buf, codec.buf_index, codec.expected_length = bytearray(), 0, 8
    messages = codec.parse_buffer(data) or []
    # pymavlink frees its buffer only when it is empty, which that of a busy stream may never be.
    del codec.buf[: codec.buf_index]
    codec.buf_index = 0
    # pymavlink returns messages of unknown types without a look at checksum and signature.
    return [
        one
        for one in messages
        if one.get_type() != "BAD_DATA"
        and not one.get_type().startswith("UNKNOWN")
        and one.get_msgbuf()[0] == VERSION_2
    ]


class MessageKind(Enum):
    """What a message counts as: a flood of one kind does not crowd out the others."""

    AUTOPILOT = "from the autopilot of this system"
    COMMAND = "to this component"
    OTHER = "all others"


class MavlinkLink:
    """Sends and receives MAVLink 2 messages until it is closed; `send` may be called from any thread.

    :param connection: see `open_transport`. :param receive: called with each message of `TYPES` in the link's thread.
    :param tick: called in the link's thread at least every `RECONNECT_SECONDS`, connected or not.
    :param key: see `make_codec`. :param types: of the messages that are passed on;
        None for all.
    """

    def __init__(
        self,
        connection: str,
        baud: int,
        system: int,
        component: int,
        *,
        receive: Callable[[Any], None],
        tick: Callable[[], None],
        log: Callable[[str], None],
        key: bytes | None = None,
        types: Container[str] | None = TYPES,
    ) -> None:
        dialect()
        self._where, self._baud, self._source, self._key = connection, baud, (system, component), key
        self._receive, self._tick, self._log, self._types = receive, tick, log, types
        self._transport: Transport | None = None
        self._codec: Any = None
        self._heard: dict[Any, int] = {}
        self._lock = threading.Lock()
        self._closing, self._deliver = threading.Event(), True
        self._budgets = {kind: Budget(MAX_MESSAGES_PER_SECOND, BURST_MESSAGES) for kind in MessageKind}
        self._thread = threading.Thread(target=self._run, name="mavlink", daemon=True)
        self.dropped = 0
        """Messages beyond `MAX_MESSAGES_PER_SECOND`."""
        self.problem = "not connected yet"
        """Why there is no connection; empty while there is one."""

    def start(self) -> None:
        """Begin to connect and to receive."""
        self._thread.start()

    def close(self, timeout: float = 3.0, *, deliver: bool = True) -> bool:
        """End the thread and close the connection; return whether it has ended within ``timeout`` seconds.

        :param deliver: what waits in the system is still sent; that of a broken connection never is.
        """
        self._deliver = deliver
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def send(self, message: Any) -> bool:
        """Send a message; without a connection it is dropped. Return whether the system took it to send."""
        with self._lock:
            transport = self._transport
            if transport is not None:
                try:
                    self._codec.send(message)
                except OSError as error:
                    self._disconnect(error)
            return transport is not None and self._transport is not None and transport.taken

    def forward(self, message: Any) -> None:
        """Send a message of another link as it came; without a connection it is dropped."""
        with self._lock:
            if self._transport is not None:
                try:
                    self._transport.write(bytes(message.get_msgbuf()))
                except OSError as error:
                    self._disconnect(error)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._tick()
            if self._transport is None and not self._connect():
                self._closing.wait(RECONNECT_SECONDS)
                continue
            self._receive_some()
        with self._lock:
            self._disconnect(None)

    def _connect(self) -> bool:
        try:
            transport = open_transport(self._where, self._baud)
        except (OSError, ValueError) as error:
            self._note(f"{type(error).__name__}: {error}")
            return False
        with self._lock:
            self._codec, self._transport = make_codec(transport, *self._source, self._key, self._heard), transport
        self._note("")
        return True

    def _receive_some(self) -> None:
        transport, codec = self._transport, self._codec
        if transport is None:
            return
        try:
            data = transport.read(POLL_SECONDS)
        except (OSError, ValueError) as error:  # ValueError: `send` has closed it meanwhile
            with self._lock:
                self._disconnect(error)
            return
        for message in messages_in(codec, data, whole=transport.datagrams) if data else ():
            transport.confirm()
            if self._types is not None and message.get_type() not in self._types:
                continue
            if self._budgets[self._kind(message)].take():
                self._receive(message)
            else:
                self.dropped += 1

    def _kind(self, message: Any) -> MessageKind:
        if (message.get_srcSystem(), message.get_srcComponent()) == (self._source[0], AUTOPILOT_COMPONENT):
            return MessageKind.AUTOPILOT
        to = getattr(message, "target_system", 0), getattr(message, "target_component", 0)
        return MessageKind.COMMAND if to == self._source else MessageKind.OTHER

    def _disconnect(self, error: Exception | None) -> None:
        """Close the connection, with the lock held."""
        if self._transport is not None:
            with contextlib.suppress(OSError):
                self._transport.close(deliver=error is None and self._deliver)
            self._transport = self._codec = None
        if error is not None:
            self._note(f"{type(error).__name__}: {error}")

    def _note(self, problem: str) -> None:
        """Remember why there is no connection, and log it when it changes."""
        if problem != self.problem:
            self._log(f"MAVLink on {self._where}: {f'no connection: {problem}'[:500] if problem else 'connected'}")
        self.problem = problem


class Budget:
    """A token bucket: at most ``rate`` a second, and ``burst`` at once."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, float(burst), clock
        self._tokens, self._last = float(burst), clock()

    def take(self) -> bool:
        """Take one; return whether there was one."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._last) * self._rate)
        self._last = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
