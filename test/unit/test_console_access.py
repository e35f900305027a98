# SPDX-License-Identifier: Apache-2.0
"""Access to the console, and refused settings."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import yaml

from dimp_ros.apps.console.access import AccessDenied, Allowance, Gate
from dimp_ros.apps.console.settings import ConsoleSettings, console_parameters
from dimp_ros.ros_utils.parameter_table import range_text, value_text

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "fe80::1"])
def test_an_address_that_others_reach_needs_a_token(host):
    with pytest.raises(ValueError, match="there is no token: set token_file"):
        ConsoleSettings(host=host)
    assert not ConsoleSettings(host=host, token=TOKEN).is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_loopback_interface_needs_no_token(host):
    assert ConsoleSettings(host=host).is_loopback


@pytest.mark.parametrize("host", ["", "robot", "127.0.0.1:80", "127.0.0.1.evil.org", "localhost.evil.org", "*"])
def test_host_that_is_not_an_address_is_refused(host):
    with pytest.raises(ValueError, match=r"must be an address .* such as 127\.0\.0\.1"):
        ConsoleSettings(host=host, token=TOKEN)


@pytest.mark.parametrize("token", ["short", "0123456789abcde", "0123456789abcdef\n", "0123456789abcdé", "no, not it"])
def test_weak_token_is_not_repeated_in_the_error(token):
    with pytest.raises(ValueError, match="openssl rand -hex 16") as refusal:
        ConsoleSettings(token=token)
    assert token not in str(refusal.value)


def test_a_token_in_a_file_is_taken_without_its_line_end(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    assert ConsoleSettings(host="0.0.0.0", token_file=str(path)).token == TOKEN
    with pytest.raises(ValueError, match="both set"):
        ConsoleSettings(token=TOKEN, token_file=str(path))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_a_token_file_that_others_may_use_is_refused(tmp_path, mode):
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(mode)
    with pytest.raises(ValueError, match="chmod 600"):
        ConsoleSettings(token_file=str(path))


def test_a_token_file_that_is_missing_empty_or_binary_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        ConsoleSettings(token_file=str(tmp_path / "none"))
    for content, reason in ((b" \n", "is empty"), (b"\xff\xfe" * 9, "cannot be read"), (b"x" * 5000, "4096 bytes")):
        path = tmp_path / "token"
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(ValueError, match=reason):
            ConsoleSettings(token_file=str(path))


def test_the_settings_do_not_show_the_token():
    assert TOKEN not in repr(ConsoleSettings(token=TOKEN))


def test_every_parameter_is_described_and_set_at_the_start_only():
    rows = console_parameters()
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.text.endswith(".") and row.read_only for row in rows)


def denied(check, *arguments) -> bool:
    """Return whether a check turns the request away."""
    try:
        check(*arguments)
    except AccessDenied:
        return True
    return False


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:9", "[::1]:8080", "LOCALHOST:1"])
def test_this_machine_is_known_by_its_loopback_names_at_any_port(host):
    Gate(ConsoleSettings()).check_host(host)


@pytest.mark.parametrize(
    "host",
    [None, "", "evil.org", "evil.org:8080", "192.168.1.7:8080", "localhost.evil.org", "127.0.0.1.evil.org", "a b",
     "localhost@evil.org", "localhost:8080/x", "localhost:", "[::1", "127.1", "0x7f000001", "2130706433"],
)  # fmt: skip
def test_a_request_that_was_sent_to_another_name_is_turned_away(host):
    assert denied(Gate(ConsoleSettings()).check_host, host)


def test_only_addresses_and_known_names_are_accepted_as_host():
    gate = Gate(ConsoleSettings(host="0.0.0.0", token=TOKEN, allowed_hosts=("Rover.lan",)))
    own = socket.gethostname().lower()
    for host in ("192.168.1.7:8080", "[fe80::1]:8080", "rover.lan", "ROVER.LAN:8080", "localhost:8080", f"{own}.local"):
        gate.check_host(host)
    for host in ("evil.org", "rover.lan.evil.org", "xrover.lan"):
        assert denied(gate.check_host, host)


@pytest.mark.parametrize(
    "origin",
    [None, "", "null", "http://evil.org", "http://localhost:8081", "http://localhost", "ftp://localhost:8080",
     "http://localhost:8080.evil.org", "http://evil.org@localhost:8080", "http://[", "file://"],
)  # fmt: skip
def test_pages_of_other_origins_may_not_connect(origin):
    assert denied(Gate(ConsoleSettings()).check_origin, origin, "localhost:8080")


def test_own_page_may_connect_also_behind_a_tls_proxy():
    gate = Gate(ConsoleSettings())
    gate.check_origin("http://localhost:8080", "localhost:8080")
    gate.check_origin("https://localhost:8443", "localhost:8443")
    assert denied(gate.check_origin, "http://evil.org", "evil.org"), "a name that was bound to this address"


def test_only_the_exact_token_is_admitted():
    gate = Gate(ConsoleSettings(token=TOKEN))
    assert gate.needs_token and gate.admits(TOKEN)
    for token in ("", TOKEN[:-1], TOKEN + "0", TOKEN.upper(), "é" * 16):
        assert not gate.admits(token)


def test_tokens_are_compared_in_constant_time():
    source = Path(__file__).parents[2] / "dimp_ros" / "apps" / "console" / "access.py"
    assert "hmac.compare_digest(" in source.read_text()


def test_an_allowance_is_used_up_and_comes_back():
    now = 0.0
    allowance = Allowance(rate=2.0, burst=3.0, clock=lambda: now)
    assert [allowance.take() for _ in range(5)] == [True, True, True, False, False]
    now = 0.5
    assert [allowance.take() for _ in range(2)] == [True, False]
    now = 100.0
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]


def test_parameters_are_documented_and_the_file_has_known_ones():
    root = Path(__file__).parents[2]
    written = (root / "docs" / "console.md").read_text(encoding="utf-8")
    for row in console_parameters():
        allowed = ", ".join(f"`{choice}`" for choice in row.choices) or range_text(row.range)
        line = f"| `{row.name}` | {row.kind_text} | `{value_text(row.default)}` | {allowed} | {row.text} |"
        assert line in written, f"docs/console.md lacks: {line}"
    values = yaml.safe_load((root / "config" / "console.yaml").read_text(encoding="utf-8"))["/**"]["ros__parameters"]
    defaults = {row.name: row.default for row in console_parameters()}
    assert values and all(defaults[name] == value for name, value in values.items())
