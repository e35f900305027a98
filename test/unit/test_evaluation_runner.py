# SPDX-License-Identifier: Apache-2.0
"""One-pass evaluation: the runner, OpenCV's trackers as baselines, the report and the command `dimp-eval`."""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dimp_ros.datasets.film import Film
from dimp_ros.evaluation import cli, opencv_trackers
from dimp_ros.evaluation.layouts.registry import load_sequences
from dimp_ros.evaluation.merging import check_complete
from dimp_ros.evaluation.metrics import overlap, success_auc
from dimp_ros.evaluation.report import sequence_table, summarize, summary_table, write_json
from dimp_ros.evaluation.runner import SequenceResult, pair_file, run_pairs, run_sequence
from dimp_ros.evaluation.sequences import VideoSequence
from dimp_ros.evaluation.tracker_api import BaselineUnavailable, Prediction
from dimp_ros.evaluation.trackers import TrackerSpec
from dimp_ros.geometry.box import Box


def make_sequence(root: Path, name: str = "square", frames: int = 12, absent: tuple[int, ...] = ()) -> VideoSequence:
    """Write a textured square of 40 px that moves by (3, 2) px a frame over noise; it stays where it is `absent`."""
    generator = np.random.default_rng(7)
    background = cv2.GaussianBlur(generator.integers(0, 255, (160, 200, 3), dtype=np.uint8), (0, 0), 2)
    square = np.kron(generator.integers(0, 255, (5, 5, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    (root / name / "img").mkdir(parents=True)
    lines = []
    for index in range(frames):
        image, x, y = background.copy(), 40 + 3 * index, 50 + 2 * index
        image[y : y + 40, x : x + 40] = square
        cv2.imwrite(str(root / name / "img" / f"{index:04d}.png"), image)
        lines.append("nan,nan,nan,nan" if index in absent else f"{x},{y},40,40")
    (root / name / "groundtruth.txt").write_text("\n".join(lines))
    return load_sequences(root, [name])[0]


@dataclass
class _Drifting:
    """A tracker that knows the speed up to a constant error and breaks at a given frame."""

    step: tuple[float, float] = (3.0, 2.0)
    breaks_at: int | None = None
    box: Box | None = None
    calls: list[str] = field(default_factory=list)

    def init(self, image: Any, box: Box) -> None:
        assert image.shape == (160, 200, 3)
        self.box = box
        self.calls.append("init")

    def update(self, image: Any) -> Prediction:
        self.calls.append("update")
        if len(self.calls) - 1 == self.breaks_at:
            raise RuntimeError("lost my mind")
        assert self.box is not None
        self.box = Box(self.box.x + self.step[0], self.box.y + self.step[1], self.box.w, self.box.h)
        return Prediction(self.box, True, 0.75)


@dataclass
class _DriftingSpec:
    name: str = "drifting"
    step: tuple[float, float] = (3.0, 2.0)
    version: int = 1
    made: int = 0

    def make(self, threads: int = 1) -> _Drifting:
        self.made += 1
        return _Drifting(self.step)

    def fingerprint(self) -> dict[str, Any]:
        return {"version": self.version}


DATA = Path(__file__).parents[3] / "shared" / "data"


def has_baseline(name: str) -> bool:
    try:
        opencv_trackers.baseline_factory(name)
    except BaselineUnavailable:
        return False
    return True


def test_a_tracker_gets_the_first_box_and_no_help_after_it(tmp_path: Path) -> None:
    sequence = make_sequence(tmp_path, frames=6, absent=(3,))
    tracker = _Drifting()

    result = run_sequence(tracker, sequence, "drifting")

    assert tracker.calls == ["init"] + ["update"] * 5
    assert result.boxes == [(40 + 3 * i, 50 + 2 * i, 40, 40) for i in range(6)]
    assert result.confidence == [None] + [0.75] * 5
    assert len(result.milliseconds) == 6 and result.error is None
    assert success_auc(result.boxes, sequence.boxes) == pytest.approx(20 / 21)


def test_time_is_the_trackers_and_not_that_of_reading_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequence = make_sequence(tmp_path, frames=3)
    read = VideoSequence.image

    def slow_image(self: VideoSequence, index: int) -> Any:
        time.sleep(0.1)
        return read(self, index)

    monkeypatch.setattr(VideoSequence, "image", slow_image)

    assert max(run_sequence(_Drifting(), sequence).milliseconds) < 50


def test_failed_tracker_keeps_its_last_box_and_the_error(tmp_path: Path) -> None:
    sequence = make_sequence(tmp_path, frames=6)

    result = run_sequence(_Drifting(breaks_at=3), sequence)

    assert result.error == "frame 3: RuntimeError: lost my mind"
    assert result.boxes[2:] == [(46, 54, 40, 40)] * 4
    assert result.found == [True, True, True, False, False, False]
    assert len(result.milliseconds) == 3


def test_second_run_into_a_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_sequence(tmp_path / "in", "a", 3)
    out = tmp_path / "out"
    command = ["--sequences", str(tmp_path / "in"), "--out", str(out), "--jobs", "1", "--trackers"]
    others = [[*command, "mil"], [*command, "kcf", "--resume"], [*command[:2], "--merge", str(out), "--out", str(out)]]
    collect, statuses = cli.collect, []

    def collect_and_begin_others(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(cli, "collect", collect)
        results = collect(*arguments, **options)
        statuses.extend(cli.main(other) for other in others)
        return results

    monkeypatch.setattr(cli, "collect", collect_and_begin_others)
    assert cli.main([*command, "kcf"]) == 0
    assert statuses == [2, 2, 2]
    assert capsys.readouterr().err.count(f"another run writes into {out}: end it, or give another --out") == 3
    assert list(json.loads((out / "results.json").read_text())["trackers"]) == ["kcf"]


@dataclass(frozen=True)
class _DyingSpec:
    name: str = "dying"

    def fingerprint(self) -> dict[str, Any]:
        return {}

    def make(self, threads: int = 1) -> Any:
        os.kill(os.getpid(), 9)


def test_worker_that_is_killed_ends_the_run_with_a_reason(tmp_path: Path) -> None:
    sequences = [make_sequence(tmp_path, name, 3) for name in "ab"]
    with pytest.raises(ChildProcessError, match=r"has died.*fewer --jobs.*--resume"):
        list(run_pairs([_DyingSpec()], sequences, jobs=2))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_box_that_is_not_finite_is_an_error_and_no_result(tmp_path: Path, value: float) -> None:
    sequence = make_sequence(tmp_path, frames=4)
    tracker = _Drifting()
    tracker.update = lambda image: Prediction(Box(1.0, 2.0, value, 4.0))  # type: ignore[method-assign]

    result = run_sequence(tracker, sequence)

    assert result.error is not None and "frame 1: ValueError: the box (1.0, 2.0" in result.error
    assert result.boxes == [sequence.init_box] * 4 and not any(result.found[1:])
    stored = tmp_path / "stored.json"
    replace(result, boxes=[*result.boxes[:3], Box(1.0, value, 3.0, 4.0)]).save(stored)
    with pytest.raises(ValueError, match=r"stored\.json is not a result of dimp-eval.* is not finite"):
        SequenceResult.load(stored)


def test_unreadable_image_ends_only_its_own_sequence(tmp_path: Path) -> None:
    damaged, whole = make_sequence(tmp_path, "damaged"), make_sequence(tmp_path, "whole")
    damaged.frames[5].write_bytes(b"not an image")
    first, second = (run_sequence(_Drifting(), sequence) for sequence in (damaged, whole))
    assert first.error is not None and "frame 5: ValueError: cannot read the image" in first.error
    assert len(first.boxes) == 12 and first.found[4] and not any(first.found[5:])
    assert second.error is None and all(second.found)


def test_resumed_run_repeats_only_missing_or_changed_pairs(tmp_path: Path) -> None:
    sequences = [make_sequence(tmp_path / "in", "a", 4), make_sequence(tmp_path / "in", "b", 6)]
    out = tmp_path / "out"
    first = list(run_pairs([_DriftingSpec()], sequences, out=out))
    assert [result.sequence for result in first] == ["b", "a"]  # longest first

    def again(spec: _DriftingSpec, resume: bool = True) -> int:
        results = list(run_pairs([spec], sequences, out=out, resume=resume))
        assert sorted(result.sequence for result in results) == ["a", "b"]
        return spec.made

    assert again(_DriftingSpec(), resume=False) == 1
    assert again(_DriftingSpec()) == 0
    assert again(_DriftingSpec(version=2)) == 1
    pair_file(out, "drifting", "a").unlink()
    assert again(_DriftingSpec(version=2)) == 1


def _moved(sequence: VideoSequence) -> bool:
    sequence.frames[0].parent.parent.rename(sequence.frames[0].parent.parent.parent / "elsewhere")
    return False


def _touched(sequence: VideoSequence) -> bool:
    os.utime(sequence.frames[2], (1, 1))
    return False


def _encoded_anew(sequence: VideoSequence) -> bool:
    image = cv2.imread(str(sequence.frames[2]))
    return cv2.imwrite(str(sequence.frames[2]), image, [cv2.IMWRITE_PNG_COMPRESSION, 0])


def _of_the_same_size(sequence: VideoSequence) -> bool:
    data = bytearray(sequence.frames[2].read_bytes())
    data[len(data) // 2] ^= 1
    return bool(sequence.frames[2].write_bytes(data))


def _renamed(sequence: VideoSequence) -> bool:
    return bool(sequence.frames[2].rename(sequence.frames[2].with_name("0002b.png")))


def _in_another_order(sequence: VideoSequence) -> bool:
    first, second = (path.read_bytes() for path in sequence.frames[2:4])
    return bool(sequence.frames[2].write_bytes(second) and sequence.frames[3].write_bytes(first))


@pytest.mark.parametrize(
    "change",
    [_moved, _touched, _encoded_anew, _of_the_same_size, _renamed, _in_another_order],
    ids=lambda f: f.__name__,
)
def test_resumed_run_repeats_pairs_of_other_images(tmp_path: Path, change: Callable[[VideoSequence], bool]) -> None:
    sequence = make_sequence(tmp_path / "in", "a", 5)
    (fresh,) = run_pairs([_DriftingSpec()], [sequence], out=tmp_path / "out")
    repeated = change(sequence)
    folder = next((tmp_path / "in").iterdir())
    changed = replace(sequence, frames=tuple(sorted((folder / "img").iterdir())))
    spec = _DriftingSpec()
    (again,) = run_pairs([spec], [changed], out=tmp_path / "out", resume=True)
    assert spec.made == repeated
    assert (again.images != fresh.images) == repeated
    other = replace(again, images=changed.digest())
    check_complete([other], [changed])
    if repeated:
        with pytest.raises(ValueError, match="drifting's result on a is of other images"):
            check_complete([fresh], [changed])


@pytest.mark.parametrize("by", [(0.001, 0, 0, 0), (9, 9, 0, 0), (0, 0, 0, 2)])
def test_results_that_began_on_another_box_are_not_merged(tmp_path: Path, by: tuple[float, ...]) -> None:
    sequence = make_sequence(tmp_path / "in", "a", 5)
    results = run_pairs([_DriftingSpec()], [sequence], out=tmp_path / "out")
    results = [replace(result, images=sequence.digest()) for result in results]
    check_complete(results, [sequence])
    later = replace(sequence, boxes=np.concatenate([sequence.boxes[:1], sequence.boxes[1:] + by]))
    check_complete(results, [later])  # of these, a run knows nothing
    first = replace(sequence, boxes=np.concatenate([sequence.boxes[:1] + by, sequence.boxes[1:]]))
    with pytest.raises(ValueError, match=r"drifting's result on a began on the box .* and the first box is"):
        check_complete(results, [first])


def test_digest_of_a_film_tells_other_films_and_parts(tmp_path: Path) -> None:
    sequence = make_sequence(tmp_path, "a", 5)

    def digest(data: bytes, first: int = 0) -> str:
        path = tmp_path / "film.mp4"
        path.write_bytes(data)
        return replace(sequence, frames=(path,) * 5, film=Film(path, first)).digest()

    large = bytes(3 << 20)
    digests = {digest(b"x"), digest(b"x", 1), digest(b"y"), digest(b"xx"), digest(large), digest(large[:-1] + b"x")}
    assert len(digests) == 6 and digest(b"x") in digests


def test_pair_that_ended_in_an_error_is_run_again(tmp_path: Path) -> None:
    sequence = make_sequence(tmp_path / "in", "a", 5)
    whole = sequence.frames[3].read_bytes()
    sequence.frames[3].write_bytes(b"no image")
    (failed,) = run_pairs([_DriftingSpec()], [sequence], out=tmp_path / "out")
    assert failed.error is not None
    for repeated in (1, 0):
        sequence.frames[3].write_bytes(whole)
        spec = _DriftingSpec()
        (result,) = run_pairs([spec], [sequence], out=tmp_path / "out", resume=True)
        assert result.error is None and spec.made == repeated
    broken = replace(result, error="frame 1: out of memory")
    broken.save(pair_file(tmp_path / "out", "drifting", "a"))
    spec = _DriftingSpec()
    assert next(run_pairs([spec], [sequence], out=tmp_path / "out", resume=True)).error is None and spec.made == 1


def test_stored_results_come_back_equal(tmp_path: Path) -> None:
    sequence = make_sequence(tmp_path / "in", frames=4)
    (fresh,) = run_pairs([_DriftingSpec("dimp:/some where/x.safetensors")], [sequence], out=tmp_path)
    (stored,) = run_pairs([_DriftingSpec("dimp:/some where/x.safetensors")], [sequence], out=tmp_path, resume=True)

    assert stored == fresh
    assert fresh.fingerprint == {"version": 1}


def test_names_that_differ_only_in_signs_do_not_share_a_file(tmp_path: Path) -> None:
    names = ["dimp:/a/b.safetensors", "dimp:/a_b.safetensors", "dimp_lite", "dimp_lite@seed=1", "dimp_lite@seed=2"]

    assert len({pair_file(tmp_path, name, "s") for name in names}) == len(names)
    assert pair_file(tmp_path, "dimp_lite@seed=1", "s") == tmp_path / "pairs" / "dimp_lite@seed=1" / "s.json"


def test_ablation_runs_its_variants_and_named_trackers() -> None:
    def names(*arguments: str) -> list[str]:
        return cli.tracker_names(cli.build_parser().parse_args(["--sequences", "x", *arguments]))

    assert names() == cli.DEFAULT_TRACKERS.split(",")
    assert names("--ablate", "dimp_lite")[:2] == [
        "dimp_lite",
        "dimp_lite@init_steps=0@update_steps=0@hard_negative_steps=0",
    ]
    assert len(names("--ablate", "dimp_lite")) == 10
    assert names("--ablate", "dimp_lite", "--trackers", "kcf,dimp_lite")[10:] == ["kcf"]


@pytest.mark.skipif(not has_baseline("kcf"), reason="this OpenCV has no KCF")
def test_processes_give_the_same_tracks_as_one_process(tmp_path: Path) -> None:
    sequences = [make_sequence(tmp_path, name, frames) for name, frames in (("a", 5), ("b", 9), ("c", 7))]
    specs = [TrackerSpec("kcf")]

    here = {result.sequence: result.boxes for result in run_pairs(specs, sequences)}
    there = {result.sequence: result.boxes for result in run_pairs(specs, sequences, jobs=2)}

    assert here == there and len(here) == 3


@pytest.mark.parametrize("name", ["kcf", "csrt", "mil"])
def test_opencvs_trackers_follow_a_textured_square(tmp_path: Path, name: str) -> None:
    if not has_baseline(name):
        pytest.skip(f"this OpenCV has no {name}")
    sequence = make_sequence(tmp_path)

    result = run_sequence(TrackerSpec(name).make(), sequence)

    assert result.error is None
    assert overlap(result.boxes, sequence.boxes).min() > (
        0.0 if name == "mil" else 0.7
    )  # MIL draws random numbers, seeded by the time


@pytest.mark.skipif(not (DATA / "peers").is_dir(), reason="no ../shared/data with sequences and NanoTrack's files")
@pytest.mark.parametrize(
    ("name", "percent"), [("kcf", 7.2), ("csrt", 36.2), ("nanotrack_v1", 75.9), ("nanotrack_v2", 78.7)]
)
def test_baselines_reach_their_known_figures_on_a_real_sequence(name: str, percent: float) -> None:
    spec = TrackerSpec(name, baselines=DATA / "peers")
    try:
        spec.check()
    except BaselineUnavailable as reason:
        pytest.skip(str(reason))
    (sequence,) = load_sequences(DATA / "sequences", ["uav_wakeboard7"])

    result = run_sequence(spec.make(), sequence)

    assert 100 * success_auc(result.boxes, sequence.boxes) == pytest.approx(percent, abs=3)
    assert (result.confidence[-1] is not None) == name.startswith("nanotrack")


def test_where_a_baseline_reports_failure_its_last_box_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        answers = iter([(True, (44, 52, 40, 40)), (False, (0, 0, 0, 0)), (True, (50, 56, 40, 40))])

        def init(self, image: Any, box: tuple[int, ...]) -> None:
            assert box == (40, 50, 40, 40) and all(type(value) is int for value in box)

        def update(self, image: Any) -> Any:
            return next(self.answers)

    monkeypatch.setattr(opencv_trackers, "baseline_factory", lambda name, folder: Failing)

    result = run_sequence(opencv_trackers.OpenCVBaseline("kcf"), make_sequence(tmp_path, frames=4))

    assert [box[0] for box in result.boxes] == [40, 44, 44, 50]
    assert result.found == [True, True, False, True]


def test_a_baseline_that_cannot_run_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(opencv_trackers.CLASSES, "kcf", "TrackerThatIsNotThere")
    with pytest.raises(BaselineUnavailable, match="has no TrackerThatIsNotThere; install opencv-contrib-python"):
        TrackerSpec("kcf").make()
    if hasattr(cv2, "TrackerNano"):
        with pytest.raises(BaselineUnavailable, match="--baselines DIR"):
            TrackerSpec("nanotrack_v2").make()
        with pytest.raises(BaselineUnavailable, match=r"no \*nanotrackv2\*backbone\*\.onnx under"):
            TrackerSpec("nanotrack_v2", baselines=tmp_path).make()


def test_figures_are_means_over_sequences_not_frames(tmp_path: Path) -> None:
    sequences = [make_sequence(tmp_path, "long", 20), make_sequence(tmp_path, "short", 2)]
    specs = [_DriftingSpec("exact"), _DriftingSpec("gone", step=(1000.0, 0.0))]

    exact, gone = summarize(list(run_pairs(specs, sequences)), sequences)

    assert exact.auc == pytest.approx(20 / 21) and exact.p20 == 1
    assert gone.auc == pytest.approx(20 / 21 * (1 / 20 + 1 / 2) / 2)
    assert gone.p20 == pytest.approx((1 / 20 + 1 / 2) / 2)
    assert exact.time_ratio is None  # no CSRT in this run
    assert (exact.ao, exact.sr50, exact.sr75, gone.ao) == (1, 1, 1, 0)
    assert np.mean(gone.success) == pytest.approx(gone.auc) and gone.precision[20] == pytest.approx(gone.p20)
    with pytest.raises(ValueError, match="1 of 2 sequences"):
        summarize(list(run_pairs(specs, sequences[:1])), sequences)


def test_times_are_given_relative_to_csrt_of_the_same_run(tmp_path: Path) -> None:
    sequence = make_sequence(tmp_path, frames=3)
    results = list(run_pairs([_DriftingSpec("fast"), _DriftingSpec("csrt")], [sequence]))
    for result, milliseconds in zip(results, (5.0, 20.0), strict=True):
        result.milliseconds[:] = [900.0, milliseconds, milliseconds]

    figures = summarize(results, [sequence])
    write_json(tmp_path / "deep" / "results.json", figures, {"jobs": 1})

    assert [figure.time_ratio for figure in figures] == [0.25, 1.0]
    assert summary_table(figures).splitlines()[0].startswith("| mean of 1 sequence ")
    assert summary_table(figures).splitlines()[2].split() == (
        "| fast | 95.2 | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 | 5.0 | 0.25 |".split()
    )
    assert sequence_table(figures).splitlines()[2].split() == "| square | 95.2 | 95.2 |".split()
    stored = json.loads((tmp_path / "deep" / "results.json").read_text())
    assert stored["trackers"]["fast"]["sequences"]["square"]["auc"] == pytest.approx(20 / 21)


def test_average_overlap_is_over_frames_of_all_sequences(tmp_path: Path) -> None:
    sequences = [make_sequence(tmp_path, "long", 11), make_sequence(tmp_path, "short", 3)]
    spec = _DriftingSpec("half")
    results = [result for result in run_pairs([spec], sequences)]
    for result in results:
        if result.sequence == "short":
            result.boxes[1:] = [Box(190.0, 150.0, 5.0, 5.0)] * 2

    (figures,) = summarize(results, sequences)

    assert figures.ao == pytest.approx(10 / 12)  # the mean over sequences would be 1/2
    assert figures.average_overlap_success[0] == pytest.approx(10 / 12)
    assert [item.counted for item in figures.sequences.values()] == [10, 2]
    assert results[0].image_size == (200, 160)


def test_long_names_are_numbered_in_the_table_by_sequence(tmp_path: Path) -> None:
    sequence = make_sequence(tmp_path, frames=2)
    specs = [_DriftingSpec("ours"), _DriftingSpec("ours@a_long_setting=0")]
    figures = summarize(list(run_pairs(specs, [sequence])), [sequence])

    assert sequence_table(figures).splitlines()[0].split("|")[2:4] == ["  (1) ", "  (2) "]
    assert "| (2) ours@a_long_setting=0 |" in summary_table(figures)


@pytest.mark.skipif(not has_baseline("kcf"), reason="this OpenCV has no KCF")
def test_the_command_prints_tables_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sequence(tmp_path / "in", "a", 4)
    make_sequence(tmp_path / "in", "b", 5)
    command = ["--sequences", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--jobs", "1"]

    assert cli.main([*command, "--trackers", "nanotrack_v1,kcf"]) == 0

    printed = capsys.readouterr()
    assert "nanotrack_v1 left out" in printed.err
    assert "| mean of 2 sequences |" in printed.out and "nanotrack" not in printed.out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["trackers"]["kcf"]["auc"] > 0.6
    assert pair_file(tmp_path / "out", "kcf", "a").is_file()
    assert cli.main([*command, "--trackers", "kcf", "--resume"]) == 0

    stored = tmp_path / "out" / "results.json"
    before = stored.read_bytes()
    capsys.readouterr()
    for other in (["--trackers", "mil"], ["--ablate", "dimp_lite"]):
        assert cli.main([*command, *other]) == 2 and stored.read_bytes() == before
        assert "has the figures of kcf, which this run does not measure" in capsys.readouterr().err
    merge = [*command[:2], "--merge", str(tmp_path / "out")]
    assert cli.main([*merge, "--out", str(tmp_path / "out")]) == 0
    kept = json.loads(stored.read_text())["settings"]["merged"]
    assert kept == {str(tmp_path / "out"): json.loads(before)["settings"]}
    merged = tmp_path / "merged" / "results.json"
    written: list[bool] = []
    monkeypatch.setattr(cli, "print", lambda *_, **__: written.append(merged.is_file()), raising=False)
    assert cli.main([*merge, "--out", str(merged.parent)]) == 0 and all(written) and len(written) > 1
    monkeypatch.undo()
    other = tmp_path / "other" / "results.json"
    other.parent.mkdir()
    for text in ("garbage", "[]", "{}", '{"trackers": [1], "settings": {}}'):
        other.write_text(text)
        for arguments in ([*command[:2], "--trackers", "kcf", "--resume"], merge):
            assert cli.main([*arguments, "--out", str(other.parent)]) == 2 and other.read_text() == text
            assert "is not a result of dimp-eval" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (["--trackers", "nanotrack_v1"], "none of the trackers can run here"),
        (["--trackers", "dimp:/not/there.safetensors"], "no weights file /not/there.safetensors"),
        (["--only", "nope"], "no sequence nope"),
        (["--resume"], "--resume needs --out"),
    ],
)
def test_a_bad_request_ends_with_2_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], reason: str
) -> None:
    make_sequence(tmp_path, frames=2)

    assert cli.main(["--sequences", str(tmp_path), *extra]) == 2

    error = capsys.readouterr().err
    assert reason in error and "Traceback" not in error


def test_results_are_never_written_into_the_sequences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_sequence(tmp_path / "data")
    before = sorted(tmp_path.rglob("*"))
    for out in (tmp_path / "data", tmp_path / "data" / "results"):
        assert cli.main(["--sequences", str(tmp_path / "data"), "--trackers", "kcf", "--out", str(out)]) == 2
        assert "--out" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
