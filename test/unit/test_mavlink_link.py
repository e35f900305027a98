# SPDX-License-Identifier: Apache-2.0
"""The MAVLink link over real sockets on the loopback interface, its signatures and its bounds."""

from __future__ import annotations

import contextlib
import os
import pty
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from dimp_ros.apps.mavlink import transport
from dimp_ros.apps.mavlink.display import DisplayedImage
from dimp_ros.apps.mavlink.link import Budget, MavlinkLink, make_codec, messages_in, signing_time
from dimp_ros.apps.mavlink.transport import (
    MAX_PEERS,
    MOST_WAITING,
    Backlog,
    TcpTransport,
    UdpTransport,
    open_transport,
    split_address,
)

common = pytest.importorskip(
    "pymavlink.dialects.v20.common", reason="pymavlink is not installed: pip install pymavlink"
)

HOST = "127.0.0.1"
KEY, OTHER_KEY = b"k" * 32, b"o" * 32


def free_port(kind: int = socket.SOCK_DGRAM) -> int:
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


def wait_until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
    return found


class Sink:
    """Collects what a codec sends."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        """Keep bytes."""
        self.data += bytes(data)


def packed(number: int = 0, key: bytes | None = None) -> bytes:
    """Return a heartbeat of a ground station; ``number`` is in its custom mode."""
    sink = Sink()
    make_codec(sink, 255, 190, key).send(common.MAVLink_heartbeat_message(6, 8, 0, number, 4, 3))
    return sink.data


@contextmanager
def link(connection: str, key: bytes | None = None) -> Iterator[Any]:
    """Run a link, which counts what it receives."""
    received: list[Any] = []
    log: list[str] = []
    one = MavlinkLink(connection, 57600, 1, 100, receive=received.append, tick=lambda: None, log=log.append, key=key)
    one.start()
    try:
        yield one, received, log
    finally:
        assert one.close()


def heartbeat() -> Any:
    return common.MAVLink_heartbeat_message(30, 8, 0, 0, 4, 3)


def test_udp_out_sends_to_its_destination_and_hears_only_it() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ground,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        ground.bind((HOST, 0))
        ground.settimeout(10)
        with link(f"udpout:{HOST}:{ground.getsockname()[1]}") as (one, received, _):
            wait_until(lambda: not one.problem)
            one.send(heartbeat())
            data, address = ground.recvfrom(1000)
            assert messages_in(make_codec(Sink(), 1, 1, None), data, whole=True)[0].get_srcComponent() == 100
            other.sendto(packed(1), address)
            ground.sendto(packed(2), address)
            wait_until(lambda: received)
            assert [message.custom_mode for message in received] == [2]


def test_udp_in_answers_those_it_has_heard_valid_messages_from() -> None:
    port = free_port()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ground,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        ground.settimeout(10)
        with link(f"udpin:{HOST}:{port}") as (one, received, _):
            wait_until(lambda: not one.problem)
            other.sendto(b"\xfd no MAVLink at all" * 3, (HOST, port))
            ground.sendto(packed(7), (HOST, port))
            wait_until(lambda: received)
            one.send(heartbeat())
            assert ground.recv(1000)
            other.setblocking(False)
            with pytest.raises(BlockingIOError):
                other.recv(1000)


def test_udp_peers_are_bounded() -> None:
    transport = UdpTransport(HOST, free_port(), listen=True)
    for number in range(3 * MAX_PEERS):
        transport._last = (HOST, 20000 + number)
        transport.confirm()
    sent: list[Any] = []
    transport._socket.close()

    class Socket:
        def sendto(self, data: bytes, address: Any) -> None:
            sent.append(address)

        def close(self) -> None:
            pass

    transport._socket = Socket()  # type: ignore[assignment]
    transport.write(b"x")
    assert len(sent) == MAX_PEERS


def test_cut_datagram_does_not_swallow_the_next() -> None:
    codec = make_codec(Sink(), 1, 100, None)
    assert messages_in(codec, packed(1)[:-3], whole=True) == []
    assert [one.custom_mode for one in messages_in(codec, packed(2), whole=True)] == [2]


def test_stream_joins_pieces_and_skips_rubbish() -> None:
    codec = make_codec(Sink(), 1, 100, None)
    data = b"rubbish" + packed(1) + b"\x00\x01" + packed(2)
    found = [one for byte in data for one in messages_in(codec, bytes([byte]), whole=False)]
    assert [one.custom_mode for one in found] == [1, 2]


@pytest.mark.parametrize("size", [1, 20, 37, 2048])
def test_buffer_of_a_stream_that_never_pauses_stays_small(size: int) -> None:
    codec = make_codec(Sink(), 1, 100, None)
    data = packed(1) * 5 + b"rubbish" + packed(2) * 600
    found = 0
    for begin in range(7, len(data) - 7, size):
        found += len(messages_in(codec, data[begin : min(begin + size, len(data) - 7)], whole=False))
        assert len(codec.buf) <= 280 + size
    assert found >= 602


def test_messages_of_unknown_type_and_of_version_one_are_ignored() -> None:
    unknown = bytearray(packed(1))
    unknown[7:10] = (60000).to_bytes(3, "little")
    old = heartbeat().pack(make_codec(Sink(), 255, 190, None), force_mavlink1=True)
    codec = make_codec(Sink(), 1, 100, None)
    assert messages_in(codec, bytes(unknown), whole=True) == [] and messages_in(codec, bytes(old), whole=True) == []


def test_tcp_client_reconnects_when_the_server_comes_back() -> None:
    port = free_port(socket.SOCK_STREAM)
    with link(f"tcp:{HOST}:{port}") as (one, received, log):
        wait_until(lambda: "refused" in one.problem)
        for number in (1, 2):
            with socket.create_server((HOST, port)) as server:
                server.settimeout(10)
                stream, _ = server.accept()
                with stream:
                    stream.sendall(packed(number))
                    wait_until(lambda expected=number: len(received) == expected)
        wait_until(lambda: one.problem)
    assert [message.custom_mode for message in received] == [1, 2]
    assert sum(line.endswith(": connected") for line in log) >= 2


def test_tcp_server_takes_one_client_after_the_other() -> None:
    port = free_port(socket.SOCK_STREAM)
    with link(f"tcpin:{HOST}:{port}") as (one, received, _):
        wait_until(lambda: not one.problem)
        for number in (1, 2):
            with socket.create_connection((HOST, port), 10) as stream:
                stream.sendall(packed(number))
                wait_until(lambda expected=number: len(received) == expected)
                one.send(heartbeat())
                assert stream.recv(1000)


def test_silent_tcp_client_makes_room_for_one_that_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "SILENT_SECONDS", 0.3)
    port = free_port(socket.SOCK_STREAM)
    with link(f"tcpin:{HOST}:{port}") as (one, received, _):
        wait_until(lambda: not one.problem)
        with socket.create_connection((HOST, port), 10) as silent, socket.create_connection((HOST, port), 10) as ground:
            silent.sendall(b"no MAVLink")
            ground.sendall(packed(7))
            wait_until(lambda: received)
            one.send(heartbeat())
            assert ground.recv(1000)


def test_tcp_client_that_speaks_is_not_displaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "SILENT_SECONDS", 1.0)
    port = free_port(socket.SOCK_STREAM)
    with link(f"tcpin:{HOST}:{port}") as (one, received, _):
        wait_until(lambda: not one.problem)
        with socket.create_connection((HOST, port), 10) as ground, socket.create_connection((HOST, port), 10) as other:
            other.sendall(packed(1000))
            for number in range(20):  # two seconds
                ground.sendall(packed(number))
                time.sleep(0.1)
            wait_until(lambda: len(received) == 20)
            # Here, while it is connected: once it leaves, the other one is heard.
            assert [message.custom_mode for message in received] == list(range(20))


def jam(transport: TcpTransport) -> int:
    """Write until nothing more is taken; return how many bytes were."""
    taken = 0
    for _ in range(100_000):
        transport.write(b"x" * 70)
        if not transport.taken:
            return taken
        taken += 70
    raise AssertionError("everything is taken")


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell how many bytes wait")
def test_a_slow_stream_holds_few_bytes_back_and_drops_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dimp_ros.apps.mavlink.transport.JAM_SECONDS", 0.0)
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        server.bind((HOST, 0))
        server.listen(1)
        transport = TcpTransport(HOST, server.getsockname()[1], listen=False)
        with server.accept()[0] as stream:
            sent = jam(transport)
            for _ in range(100):
                transport.write(b"x" * 70)
            assert not transport.taken and transport._backlog._waiting() <= MOST_WAITING + 70
            while sent > 0:
                sent -= len(stream.recv(4096))
            assert sent == 0, "what is dropped is dropped as a whole"
            wait_until(lambda: transport._backlog.has_room())
            transport.write(b"y" * 70)
            assert transport.taken and stream.recv(100) == b"y" * 70
            jam(transport)
            monkeypatch.setattr("dimp_ros.apps.mavlink.transport.SILENT_SECONDS", 0.05)
            with pytest.raises(TimeoutError, match="no byte"):
                for _ in range(100):
                    time.sleep(0.02)
                    transport.write(b"x" * 70)
        transport.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell how many bytes wait")
@pytest.mark.parametrize(
    ("kind", "end"),
    [("tcpin", "displaced")]
    + [(kind, end) for kind in ("tcp", "tcpin") for end in ("discarded", "stalled", "killed", "delivered")],
)
def test_bytes_that_wait_when_a_stream_ends_are_old_and_discarded_but_at_an_orderly_end(
    kind: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dimp_ros.apps.mavlink.transport.JAM_SECONDS", 0.0)
    with small_peer(kind) as (one, stream):
        sent = 12_000  # the peer's system takes a part
        one.write(b"x" * sent)
        if end == "stalled":
            monkeypatch.setattr("dimp_ros.apps.mavlink.transport.SILENT_SECONDS", 0.0)
            with contextlib.suppress(TimeoutError):
                while one._stream is not None:
                    one.write(b"")
        elif end == "displaced":
            assert one._server is not None
            monkeypatch.setattr("dimp_ros.apps.mavlink.transport.SILENT_SECONDS", 0.0)
            with socket.create_connection(one._server.getsockname()):
                one.read(10.0)
        elif end == "killed":
            assert one._stream is not None
            os.close(one._stream.detach())  # as the system does for a process that is killed
        else:
            one.close(deliver=end == "delivered")
        read, broken = 0, False
        try:
            while data := stream.recv(65536):
                read += len(data)
        except ConnectionResetError:
            broken = True
        assert (read == sent, broken) == ((True, False) if end == "delivered" else (False, True)), (read, sent)


@contextmanager
def small_peer(kind: str) -> Iterator[tuple[TcpTransport, socket.socket]]:
    """Connect a transport and a peer of a small buffer, which reads nothing by itself."""
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        if kind == "tcp":
            peer.bind((HOST, 0))
            peer.listen(1)
            one = TcpTransport(HOST, peer.getsockname()[1], listen=False)
            stream = peer.accept()[0]
        else:
            port = free_port(socket.SOCK_STREAM)
            one = TcpTransport(HOST, port, listen=True)
            peer.connect((HOST, port))
            one.read(10.0)
            stream = peer
        with stream:
            stream.settimeout(10.0)
            yield one, stream
        one.close()


def test_a_serial_device_that_is_closed_as_broken_sends_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("serial", reason="pyserial is not installed: pip install pyserial")
    master, slave = pty.openpty()
    try:
        for deliver, expected in ((True, ["close"]), (False, ["reset_output_buffer", "close"])):
            device, calls = transport.SerialTransport(os.ttyname(slave), 57600), []
            port = device._port
            port.close()
            for name in ("reset_output_buffer", "close"):
                monkeypatch.setattr(port, name, partial(calls.append, name))
            device.close(deliver=deliver)
            assert calls == expected
    finally:
        os.close(master)
        os.close(slave)


def test_a_device_that_counts_a_buffer_for_each_message_is_not_jammed(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, backlog = [1280], Backlog(-1)
    monkeypatch.setattr(backlog, "_waiting", lambda: waiting[0])
    now = [100.0]
    monkeypatch.setattr("dimp_ros.apps.mavlink.transport.time", SimpleNamespace(monotonic=lambda: now[0]))
    for _ in range(3):
        assert backlog.has_room()
        now[0] += 0.02
    assert not backlog.has_room(), "it lasts"
    waiting[0] = 0
    assert backlog.has_room()
    waiting[0] = 1280
    assert backlog.has_room()


def test_tcp_client_that_reads_nothing_is_dropped() -> None:
    port = free_port(socket.SOCK_STREAM)
    transport = TcpTransport(HOST, port, listen=True)
    with socket.create_connection((HOST, port), 10):
        while transport._stream is None:
            transport.read(1.0)
        begin = time.monotonic()
        while transport._stream is not None and time.monotonic() - begin < 30:
            transport.write(b"x" * 65536)
        assert transport._stream is None
    transport.close()


def test_serial_device_is_read_and_written() -> None:
    pytest.importorskip("serial", reason="pyserial is not installed: pip install pyserial")
    master, slave = pty.openpty()
    try:
        with link(os.ttyname(slave)) as (one, received, _):
            wait_until(lambda: not one.problem)
            os.write(master, packed(5))
            assert wait_until(lambda: received)[0].custom_mode == 5
            one.send(heartbeat())
            assert os.read(master, 1000)[0] == 0xFD
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize(
    "where", ["udp:1.2.3.4:5", "udpin:127.0.0.1", "tcp::5", "tcp:h:0", "tcp:h:70000", "tcp:h:x", ""]
)
def test_invalid_connection_is_refused_with_the_remedy(where: str) -> None:
    with pytest.raises(ValueError, match=r"connection is .* must be udpin:HOST:PORT"):
        open_transport(where, 57600)


def test_address_may_be_ipv6() -> None:
    assert split_address("udpin:[::1]:14550") == ("::1", 14550)


# Signing


def test_signed_link_takes_only_messages_with_its_key() -> None:
    codec = make_codec(Sink(), 1, 100, KEY)
    assert messages_in(codec, packed(1, KEY), whole=True)
    assert messages_in(codec, packed(2), whole=True) == [], "unsigned"
    assert messages_in(codec, packed(3, OTHER_KEY), whole=True) == [], "another key"


def test_replayed_message_is_refused() -> None:
    codec = make_codec(Sink(), 1, 100, KEY)
    data = packed(1, KEY)
    assert messages_in(codec, data, whole=True) and messages_in(codec, data, whole=True) == []


def test_message_of_before_a_reconnection_is_refused() -> None:
    with socket.create_server((HOST, 0)) as server, link(f"tcp:{HOST}:{server.getsockname()[1]}", KEY) as (*_, got, _):
        server.settimeout(10)
        recorded = packed(1, KEY)
        with server.accept()[0] as stream:
            stream.sendall(recorded)
            wait_until(lambda: got)
        with server.accept()[0] as stream:
            stream.sendall(recorded + packed(2, KEY))
            wait_until(lambda: len(got) == 2)
    assert [message.custom_mode for message in got] == [1, 2]


@pytest.mark.parametrize(("minutes", "taken"), [(0.5, 1), (1.5, 0), (60.0, 0)])
def test_old_message_of_a_sender_not_heard_before_is_refused(
    minutes: float, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, recorded, now = make_codec(Sink(), 1, 100, KEY), packed(1, KEY), signing_time()
    monkeypatch.setattr("dimp_ros.apps.mavlink.link.signing_time", lambda: now + int(minutes * 60e5))
    assert len(messages_in(codec, recorded, whole=True)) == taken


def test_forged_time_stamp_does_not_shut_out_the_operator() -> None:
    codec = make_codec(Sink(), 1, 100, KEY)
    assert messages_in(codec, packed(1, KEY), whole=True)
    forged = bytearray(packed(2, KEY))
    forged[-12:-6] = b"\xff" * 6
    assert messages_in(codec, bytes(forged), whole=True) == []
    time.sleep(0.001)
    assert messages_in(codec, packed(3, KEY), whole=True), "the operator's next message"


def test_signed_link_signs_what_it_sends() -> None:
    ground = make_codec(Sink(), 255, 190, KEY)
    assert messages_in(ground, packed(1, KEY), whole=True)[0].get_signed()


# Bounds


def test_budget_bounds_rate_and_burst() -> None:
    now = [0.0]
    budget = Budget(10.0, 5, clock=lambda: now[0])
    assert [budget.take() for _ in range(7)] == [True] * 5 + [False] * 2
    now[0] = 0.2
    assert [budget.take() for _ in range(4)] == [True] * 2 + [False] * 2
    now[0] = 1e6
    assert sum(budget.take() for _ in range(100)) == 5


def test_flood_is_dropped_and_counted() -> None:
    port = free_port()
    with link(f"udpin:{HOST}:{port}") as (one, received, _), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ground:
        wait_until(lambda: not one.problem)
        batch = packed(1) * 40
        for _ in range(100):
            ground.sendto(batch, (HOST, port))
            time.sleep(0.001)
        wait_until(lambda: one.dropped)
        assert len(received) < 4000


def test_messages_of_other_types_do_not_crowd_out_the_heartbeat() -> None:
    port = free_port()
    sink = Sink()
    make_codec(sink, 1, 1, None).send(common.MAVLink_attitude_message(0, 0, 0, 0, 0, 0, 0))
    with link(f"udpin:{HOST}:{port}") as (one, received, _), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ground:
        wait_until(lambda: not one.problem)
        for _ in range(50):
            ground.sendto(sink.data * 40, (HOST, port))
            time.sleep(0.001)
        ground.sendto(packed(7), (HOST, port))
        wait_until(lambda: received)
        assert not one.dropped


def sent_by(system: int, component: int, message: Any) -> bytes:
    sink = Sink()
    make_codec(sink, system, component, None).send(message)
    return sink.data


def request(system: int, component: int, number: int = 512) -> Any:
    return common.MAVLink_command_long_message(system, component, number, 0, 259, 0, 0, 0, 0, 0, 0)


STATES = [
    sent_by(1, 1, common.MAVLink_heartbeat_message(2, 3, 0x81, 5, 4, 3)),
    sent_by(1, 1, common.MAVLink_extended_sys_state_message(0, 1)),
]
COMMANDS = [sent_by(254, 190, request(1, 100, 2010))]


@pytest.mark.parametrize(
    ("flood", "spared"),
    [
        (sent_by(2, 1, heartbeat()), STATES + COMMANDS),
        (sent_by(1, 191, heartbeat()), STATES + COMMANDS),
        (sent_by(255, 190, request(2, 100)), STATES + COMMANDS),
        (sent_by(255, 190, request(1, 1)), STATES + COMMANDS),
        (sent_by(255, 190, request(1, 100)), STATES),
        (sent_by(1, 1, heartbeat()), COMMANDS),
    ],
    ids=["another vehicle", "another component", "for another system", "for the autopilot", "for us", "the autopilot"],
)
def test_flood_of_one_kind_hides_no_message_of_another(flood: bytes, spared: list[bytes]) -> None:
    port = free_port()
    with link(f"udpin:{HOST}:{port}") as (one, received, _), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ground:
        wait_until(lambda: not one.problem)
        for _ in range(20):
            ground.sendto(flood * 30, (HOST, port))
            time.sleep(0.001)
        wait_until(lambda: one.dropped)
        for data in spared:
            ground.sendto(data, (HOST, port))
        wait_until(lambda: {bytes(message.get_msgbuf()) for message in received} >= set(spared))


# The image on display


def test_displayed_image_is_the_one_taken_delay_seconds_ago() -> None:
    displayed = DisplayedImage()
    for number in range(100):  # an image every 0.1 s, with the tracker 0.05 s behind
        displayed.on_image(number * 10**8 + 10**12, number * 10**8 + 10**12 + 5 * 10**7, 50.0 + number * 0.1 + 0.05)
    assert displayed.stamp(0.0, 60.0) == 0
    assert displayed.stamp(0.5, 60.0) == 95 * 10**8 + 10**12
    assert displayed.stamp(0.53, 60.0) == 95 * 10**8 + 10**12
    assert displayed.stamp(100.0, 60.0) == 10**12, "the oldest known"


def test_displayed_image_is_found_with_stamps_of_another_clock() -> None:
    displayed = DisplayedImage()
    for number in range(100):
        displayed.on_image(number * 10**8 + 1, 10**18, 50.0 + number * 0.1)
    assert displayed.stamp(0.5, 59.9) == 94 * 10**8 + 1


def test_displayed_image_starts_over_when_stamps_go_back() -> None:
    displayed = DisplayedImage()
    displayed.on_image(10**12, 10**12, 50.0)
    displayed.on_image(10**11, 10**11, 51.0)
    assert displayed.stamp(1.0, 51.0) == 10**11
