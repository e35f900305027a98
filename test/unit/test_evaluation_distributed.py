# SPDX-License-Identifier: Apache-2.0
"""A run split among processes or machines, and the merge of its parts."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_evaluation_runner import has_baseline, make_sequence

from dimp_ros.evaluation import cli
from dimp_ros.evaluation.distributed import Rank, share

ROOT = Path(__file__).parents[2]
needs_kcf = pytest.mark.skipif(not has_baseline("kcf"), reason="this OpenCV has no KCF")


@given(st.lists(st.integers(1, 500), min_size=1, max_size=30), st.integers(1, 4), st.integers(1, 9))
def test_ranks_have_every_pair_once(lengths: list[int], trackers: int, count: int) -> None:
    sequences = [range(length) for length in lengths]
    shares = [share(list(range(trackers)), sequences, Rank(index, count)) for index in range(count)]

    pairs = [(spec, len(sequence)) for own in shares for spec, sequence in own]
    assert sorted(pairs) == sorted((spec, length) for spec in range(trackers) for length in lengths)
    frames = [sum(len(sequence) for _, sequence in own) for own in shares]
    assert max(frames) - min(frames) <= max(lengths) * trackers  # nobody waits longer than for one more sequence


def test_a_rank_runs_all_trackers_on_its_sequences() -> None:
    sequences = [range(10), range(30), range(20)]

    assert share("ab", sequences, Rank(0, 2)) == [("a", range(30)), ("b", range(30))]
    assert [len(sequence) for _, sequence in share("ab", sequences, Rank(1, 2))] == [20, 20, 10, 10]
    assert share("ab", sequences[:1], Rank(1, 2)) == [("b", range(10))]  # otherwise it had nothing to do


def test_a_rank_is_what_torchrun_says() -> None:
    environment = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}

    assert Rank.from_environment(environment) == Rank(5, 8, 1, 4)
    assert Rank.from_environment({}) == Rank() and Rank().alone
    assert [Rank(5, 8, 1, 4).cores(cores) for cores in (16, 2)] == [4, 1]
    with pytest.raises(ValueError, match="RANK 8 of WORLD_SIZE 8"):
        Rank.from_environment({"RANK": "8", "WORLD_SIZE": "8"})
    with pytest.raises(ValueError, match="WORLD_SIZE is 'two'"):
        Rank.from_environment({"WORLD_SIZE": "two"})


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    for name, frames in (("a", 4), ("b", 6), ("c", 5)):
        make_sequence(tmp_path / "in", name, frames)
    return ["--sequences", str(tmp_path / "in"), "--trackers", "kcf", "--jobs", "1"]


def tracks(out: Path) -> set[str]:
    return {path.stem for path in (out / "pairs" / "kcf").glob("*.json")}


@needs_kcf
def test_two_processes_of_torchrun_write_one_table(tmp_path: Path, command: list[str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    out = tmp_path / "out"
    launch = f"-m torch.distributed.run --nproc-per-node 2 --master-addr 127.0.0.1 --master-port {port}".split()

    run = subprocess.run(
        [sys.executable, *launch, "-m", "dimp_ros.evaluation.cli", *command, "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    assert run.returncode == 0, run.stderr
    assert "| mean of 3 sequences |" in run.stdout
    assert tracks(out) == {"a", "b", "c"}
    results = json.loads((out / "results.json").read_text())
    assert results["settings"]["ranks"] == 2 and len(results["trackers"]["kcf"]["sequences"]) == 3


@needs_kcf
def test_machines_that_share_no_disk_are_merged(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = [tmp_path / "first", tmp_path / "second"]
    for index, out in enumerate(outs):
        monkeypatch.setenv("RANK", str(index))
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert cli.main([*command, "--out", str(out)]) == 0
        printed = capsys.readouterr()
        assert "mean of" not in printed.out and "--merge" in printed.err
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    assert tracks(outs[0]) | tracks(outs[1]) == {"a", "b", "c"}
    assert not tracks(outs[0]) & tracks(outs[1])

    merged = tmp_path / "merged"
    assert cli.main([*command[:2], "--merge", *map(str, outs), "--out", str(merged)]) == 0

    assert "| mean of 3 sequences |" in capsys.readouterr().out
    assert tracks(merged) == {"a", "b", "c"}
    assert json.loads((merged / "results.json").read_text())["trackers"]["kcf"]["auc"] > 0.5
    assert cli.main([*command, "--resume", "--out", str(merged)]) == 0  # nothing is left to run


@needs_kcf
def test_a_merge_refuses_what_does_not_belong_together(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command, "--only", "a,b", "--out", str(tmp_path / "first")]) == 0
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    file = tmp_path / "second" / "pairs" / "kcf" / "b.json"
    file.write_text(file.read_text().replace('"opencv": "', '"opencv": "not-'))

    def refused(*arguments: str) -> str:
        assert cli.main([*command[:2], *arguments]) == 2
        return capsys.readouterr().err

    assert "1 results are missing: kcf on c;" in refused("--merge", str(tmp_path / "first"))
    assert "kcf was run differently" in refused("--merge", str(tmp_path / "first"), str(tmp_path / "second"))
    assert "no results in" in refused("--merge", str(tmp_path))
    assert "no results of these trackers" in refused("--merge", str(tmp_path / "first"), "--trackers", "csrt")
    file.write_text("{")
    assert "b.json is not a result" in refused("--merge", str(tmp_path / "second"))


def test_several_processes_need_a_folder_to_meet_in(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")

    assert cli.main(command) == 2
    assert "torchrun needs --out" in capsys.readouterr().err
