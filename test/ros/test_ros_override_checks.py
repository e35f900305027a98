# SPDX-License-Identifier: Apache-2.0
"""Parameters and parameter files without effect are reported at the start, with the nearest name."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from harness.ros_harness import ScriptedTracker, context, tracker_node

from dimp_ros.ros_utils.override_checks import nearest, unused_files, warn_of_overrides
from dimp_ros.ros_utils.spin import run

NAMES = ["model", "tracker.seed", "tracker.search_scale", "detector.min_score", "max_targets"]


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("modell", "model"),
        ("Model", "model"),
        ("trackr.seed", "tracker.seed"),
        ("tracker.serch_scale", "tracker.search_scale"),
        ("detector.min_scores", "detector.min_score"),
        ("max_target", "max_targets"),
        ("footage.package", ""),
        ("colour", ""),
    ],
)
def test_nearest_name_is_suggested_or_none(given: str, near: str) -> None:
    assert nearest(given, NAMES) == near


def test_misspelt_parameters_are_reported_and_right_ones_are_not(capfd: pytest.CaptureFixture[str]) -> None:
    given = {"modell": "dimp18", "trackr.seed": 3, "max_targets": 3, "colour": "red", "tracker.proposals": 4}
    with context():
        node = tracker_node(ScriptedTracker(), autostart=False, **given)
        warn_of_overrides(node, [])
        node.destroy_node()
    log = capfd.readouterr().err
    assert "parameter modell does not exist and has no effect: did you mean model?" in log
    assert "did you mean tracker.seed?" in log and "max_targets" not in log
    assert "parameter tracker.proposals is a setting of the file of tracker_config" in log
    assert [line for line in log.splitlines() if "colour" in line and "[INFO]" in line]


@pytest.mark.parametrize(
    ("content", "name", "used"),
    [
        ("/**: {ros__parameters: {model: a}}", "/robot/tracker_node", True),
        ("/**/tracker_node: {ros__parameters: {model: a}}", "/tracker_node", True),
        ("/**/tracker_node: {ros__parameters: {model: a}}", "/a/b/tracker_node", True),
        ("/*/tracker_node: {ros__parameters: {model: a}}", "/a/tracker_node", True),
        ("/*/tracker_node: {ros__parameters: {model: a}}", "/tracker_node", False),
        ("/*: {ros__parameters: {model: a}}", "/tracker_node", True),
        ("tracker_node: {ros__parameters: {model: a}}", "/tracker_node", True),
        ("/tracker_node: {ros__parameters: {model: a}}", "/tracker_node", True),
        ("tracker_node: {ros__parameters: {model: a}}", "/robot/tracker_node", False),
        ("robot: {tracker_node: {ros__parameters: {model: a}}}", "/robot/tracker_node", True),
        ("/robot/tracker_node: {ros__parameters: {model: a}}", "/robot/tracker_node", True),
        ("tracker: {ros__parameters: {model: a}}", "/tracker_node", False),
        ("tracker: {ros__parameters: {}}\n/**: {ros__parameters: {}}", "/tracker_node", True),
        ("model: a", "/tracker_node", True),
        ("[1, 2", "/tracker_node", True),
        ("", "/tracker_node", True),
    ],
)
def test_a_file_for_a_node_of_another_name_is_reported(tmp_path: Path, content: str, name: str, used: bool) -> None:
    path = tmp_path / "parameters.yaml"
    path.write_text(content)
    found = unused_files(["--ros-args", "--params-file", str(path), "-p", "model:=a"], name)
    assert (found == []) == used
    assert used or (str(path) in found[0] and name in found[0])


@pytest.mark.parametrize(
    "content", ["[" * 50_000, "a: &a {b: *a}", "tracker: {ros__parameters: {}}\n" + "#\n" * 600_000]
)
def test_a_file_that_is_deep_endless_or_large_is_left_to_ros(tmp_path: Path, content: str) -> None:
    path = tmp_path / "parameters.yaml"
    path.write_text(content)
    assert unused_files(["--params-file", str(path)], "/tracker_node") == []


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (["#" * 300_000], "may have 262144"),
        (["#" * 140_000] * 2, "may have 262144"),
        (["", "/**: {ros__parameters: {a: [" + "1," * 100_000 + "1]}}"], "list"),
        (["{a: " * 60_000], "levels deep"),
        (["/**: {ros__parameters: {a: 1, a: 2}}"], "'a' a second time"),
        (["/**: {ros__parameters: {<<: {a: 1}}}"], "merge key"),
    ],
    ids=["one", "two", "list", "deep", "twice", "merge key"],
)
def test_costly_parameter_files_are_refused_before_ros_reads_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], contents: list[str], reason: str
) -> None:
    arguments = ["--ros-args"]
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}.yaml"
        path.write_text(content)
        arguments += ["--params-file", str(path)]
    begin = time.process_time()
    assert run(lambda finish: pytest.fail("created"), arguments) == 1
    assert time.process_time() - begin < 2.0 and reason in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["fifo", "link", "pipe", "device", "folder"])
def test_parameter_file_that_is_no_regular_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    reader, writer = os.pipe()
    paths = {"pipe": f"/dev/fd/{reader}", "device": "/dev/zero", "folder": str(tmp_path)}
    path = paths.get(kind, str(tmp_path / kind))
    try:
        assert run(lambda finish: pytest.fail("created"), ["--ros-args", "--params-file", path]) == 1
    finally:
        os.close(reader)
        os.close(writer)
    error = capsys.readouterr().err
    assert error.startswith(f"cannot start: parameter file {path} is a ") and error.count("\n") == 1


def test_missing_file_is_left_to_ros(tmp_path: Path) -> None:
    assert unused_files(["--params-file", str(tmp_path / "none.yaml")], "/tracker_node") == []
