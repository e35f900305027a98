# SPDX-License-Identifier: Apache-2.0
"""Settings of every test: its own ROS domain on the loopback interface, and the accepted reasons for skips."""

from __future__ import annotations

import gc
import importlib.util
import os
import re
import signal

import hypothesis
import pytest

# Before anything imports rclpy. Parallel runs on one machine must not hear each other, nor anything else.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 101)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
if os.environ.get("ROS_DISTRO") == "humble":
    os.environ["ROS_LOCALHOST_ONLY"] = "1"

# Before anything imports torch. Two threads that share a busy core wait for each other at every step: tests of 1 s then
# take minutes. On two idle cores they gain nothing on the whole.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Programs that are started leave an ignored signal ignored, and nohup ignores this one.
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The same examples in every run: a test fails for what was changed. HYPOTHESIS_PROFILE=search looks for new ones.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.register_profile("search", derandomize=False, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


# Collection imports thousands of modules and leaves no garbage: without the collector it takes a seventh less.
gc.disable()


def pytest_collection_finish() -> None:
    """Collect garbage again while tests run, but never look through the half million objects of the imports."""
    gc.freeze()
    gc.enable()


def why_no_gpu() -> str | None:
    """Return why GPU tests cannot run here, or None if they can."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed"
    import torch

    return None if torch.cuda.is_available() else f"torch {torch.__version__} sees no CUDA device"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``gpu`` with the reason."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    reason = why_no_gpu() if marked else None
    for item in marked if reason else []:
        item.add_marker(pytest.mark.skip(reason=reason))


GOOD_SKIPS = re.compile(
    r"CUDA device|there is a GPU here|comes with a ROS distribution|of a ROS distribution|this torch has no"
)
"""Reasons that --strict-skips accepts: what only a GPU, a ROS distribution or another processor could change."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--strict-skips``."""
    parser.addoption("--strict-skips", action="store_true", help="fail if anything is skipped for want of a package")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session for skips that only want something to be installed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not session.config.getoption("--strict-skips") or reporter is None:
        return
    reasons = {str(report.longrepr[-1]) for report in reporter.stats.get("skipped", []) if report.longrepr}
    bad = sorted(reason for reason in reasons if not GOOD_SKIPS.search(reason))
    if bad:
        reporter.write_line("")
        reporter.write_line("--strict-skips: install what these tests want: " + "; ".join(bad), red=True)
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
