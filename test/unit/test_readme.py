# SPDX-License-Identifier: Apache-2.0
"""The README tells what the code does: its generated table is current, and what it names exists."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"


def test_the_parameter_table_is_the_one_made_from_the_code():
    spec = importlib.util.spec_from_file_location("update_docs", ROOT / "tools" / "update_docs.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    text = README.read_text(encoding="utf-8")
    assert tool.updated(text) == text, "run: tools/env python tools/update_docs.py"


def test_files_that_are_linked_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_make_targets_that_are_named_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^    )make ([a-z-]+)", README.read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= named
    assert named <= targets


@pytest.mark.parametrize("launch_file", sorted(path.name for path in (ROOT / "launch").glob("*.launch.py")))
def test_launch_arguments_that_are_named_exist(launch_file):
    used = re.findall(rf"{launch_file}(?:`, [^`]*`| )([^`\n]*)", README.read_text(encoding="utf-8"))
    arguments = set(re.findall(r"\b([a-z_]+):=", " ".join(used)))
    declared = set()
    for name in (ROOT / "launch").glob("*.launch.py"):
        declared |= set(re.findall(r'DeclareLaunchArgument\(\s*"([a-z_]+)"', name.read_text(encoding="utf-8")))
    assert arguments <= declared


def test_it_is_short_enough_to_be_read():
    assert len(README.read_text(encoding="utf-8").splitlines()) < 330
