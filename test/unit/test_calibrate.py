# SPDX-License-Identifier: Apache-2.0
"""Fitting the confidence: the resulting map, the sequences it is fitted on, and the command."""

import itertools
import json
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.image_fixtures import write_images
from safetensors.torch import save

from dimp_ros.datasets.base import held_out
from dimp_ros.datasets.registry import open_data_sets
from dimp_ros.evaluation.confidence import calibrate
from dimp_ros.evaluation.confidence.calibrate import Followed, filmed, fit_logistic, fit_map, follow, rendered, unseen
from dimp_ros.evaluation.confidence.metrics import auroc, calibration_error, log_loss
from dimp_ros.evaluation.sequences import VideoSequence
from dimp_ros.geometry.box import Box
from dimp_ros.model.checkpoints.checkpoint import stored_tensors
from dimp_ros.model.checkpoints.weights_file import WeightsInfo, find_weights, read_header
from dimp_ros.model.confidence import ConfidenceMap
from dimp_ros.model.dimp import build_model
from dimp_ros.synthetic.image_store_writer import build_store
from dimp_ros.synthetic.sequences import LENGTH, SyntheticFrame, synthetic_sequences


def _events(number, chance, seed=0):
    rng = np.random.default_rng(seed)
    peak = np.clip(rng.normal(0.6, 0.35, number), -0.1, 1.3)
    return peak, rng.random(number) < chance(peak)


def _levelling_off(peak):
    """Return a chance that no logistic function has: 5 % at the bottom, at most 92 %, a coin flip at 0.407."""
    return 0.05 + 0.87 / (1 + np.exp(-10 * (peak - 0.4)))


def test_the_fitted_logistic_is_one_half_where_half_is_right():
    peak, right = _events(20_000, lambda x: 1 / (1 + np.exp(-8 * (x - 0.45))))
    midpoint, slope = fit_logistic(peak, right)
    assert midpoint == pytest.approx(0.45, abs=0.02)
    assert slope == pytest.approx(8, abs=0.5)


def test_fitted_map_crosses_half_where_the_data_do():
    peak, right = _events(8_000, _levelling_off)
    fitted = fit_map(peak, right)
    assert fitted.threshold_50 == pytest.approx(0.407, abs=0.03)
    assert fitted(1.1) == pytest.approx(0.92, abs=0.03)
    assert fitted(0.0) == pytest.approx(0.066, abs=0.03)
    confidences = [value for _, value in fitted.knots]
    assert all(a <= b for a, b in itertools.pairwise(confidences))


def test_fitted_map_is_calibrated_on_new_frames():
    fitted, logistic = fit_map(*_events(4_000, _levelling_off)), calibrate.logistic_map(*_events(4_000, _levelling_off))
    peak, right = _events(20_000, _levelling_off, seed=1)
    sure, logistic_sure = (np.array([mapping(value) for value in peak]) for mapping in (fitted, logistic))
    assert calibration_error(sure, right) < 0.02 < calibration_error(logistic_sure, right)
    assert log_loss(sure, right) < log_loss(logistic_sure, right)
    assert auroc(sure, right) == pytest.approx(auroc(peak, right), abs=2e-3)


def test_of_few_frames_the_fit_is_nearly_the_logistic_function():
    peak, right = _events(60, lambda x: 1 / (1 + np.exp(-8 * (x - 0.45))))
    fitted, logistic = fit_map(peak, right), calibrate.logistic_map(peak, right)
    assert max(abs(fitted(value) - logistic(value)) for value in np.linspace(0.1, 1.1, 50)) < 0.1


def test_peaks_that_say_nothing_cannot_be_calibrated():
    peak = np.linspace(0, 1, 100)
    with pytest.raises(ValueError, match="nothing to calibrate"):
        fit_map(peak, peak < 0.5)


def test_cross_validation_separates_sequences():
    sequence = np.repeat(np.arange(10), 4)
    found = Followed(sequence, sequence.astype(float), np.ones(40), np.ones(40), np.zeros(40, bool))

    def fit(peak, right):  # what a fit has not seen gets 1, the rest 0
        seen = set(peak.tolist())
        knots = [(float(i), 0.0) for i in range(10)]
        fitted = ConfidenceMap(tuple(knots))
        object.__setattr__(fitted, "knots", tuple((p, float(p not in seen)) for p, _ in knots))
        return fitted

    assert unseen(found, fit).tolist() == [1.0] * 40


# Following synthetic sequences


@dataclass
class _Result:
    last_box: Box
    evidence: float

    @property
    def box(self):
        return self.last_box if self.evidence > 0.6 else None


class _TemplateTracker:
    """A small tracker that is honest: it seeks the first frame's target by correlation."""

    info = WeightsInfo("dimp_lite")

    def __init__(self, *_, **__):
        self.started = 0

    def drop(self):
        pass

    def init(self, image, box):
        self.box = Box(*(int(value) for value in box))
        x, y, w, h = (max(int(value), 1) for value in box)
        self.template = image[y : y + h, x : x + w]
        self.started += 1

    def update(self, image):
        scores = cv2.matchTemplate(image, self.template, cv2.TM_CCOEFF_NORMED)
        y, x = np.unravel_index(int(scores.argmax()), scores.shape)
        return _Result(Box(float(x), float(y), self.box.w, self.box.h), float(scores.max()))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("held")
    images = write_images(folder / "images", clip_frames=8)
    data = open_data_sets([{"kind": "compact", "root": str(images)}])
    return build_store(folder / "store", data, None, threads=1).folder


def test_synthetic_sequences_are_reproducible(store):
    first, again = (list(itertools.islice(synthetic_sequences(store), 3)) for _ in range(2))
    for frames, same in zip(first, again, strict=True):
        assert len(frames) == LENGTH and frames[0].visible >= 0.7
        assert frames[0].image.dtype == np.uint8 and frames[0].image.shape[2] == 3
        assert all((a.image == b.image).all() and a.box == b.box for a, b in zip(frames, same, strict=True))


def _steady(count=LENGTH):
    rng = np.random.default_rng(0)
    ground = cv2.resize(rng.integers(60, 190, (24, 32, 3), dtype=np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
    target = cv2.resize(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8), (32, 32), interpolation=cv2.INTER_NEAREST)
    frames = []
    for i in range(count):
        image = ground.copy()
        image[100:132, 60 + 4 * i : 92 + 4 * i] = target
        frames.append(SyntheticFrame(image, Box(60 + 4 * i, 100, 32, 32), 1.0))
    return frames


def test_every_other_sequence_hides_the_target():
    found = follow(_TemplateTracker(), rendered(itertools.repeat(_steady()), 2))
    hidden = np.isin(np.tile(np.arange(1, LENGTH), 2), calibrate.HIDDEN_FRAMES)
    hidden &= found.sequence % 2 == 1
    assert (found.visible[hidden] == 0).all() and (found.visible[~hidden] == 1).all()
    assert (found.right == ~hidden).all()
    assert (found.lost == hidden).all()
    assert auroc(found.evidence, found.right) == 1.0


def test_videos_are_followed_and_unknown_frames_do_not_count(tmp_path):
    frames = _steady(12)
    paths = tuple(tmp_path / f"{n}.png" for n in range(len(frames)))
    for path, frame in zip(paths, frames, strict=True):
        cv2.imwrite(str(path), frame.image)
    boxes = np.array([frame.box for frame in frames], np.float64)
    boxes[5:8] = np.nan
    absent = VideoSequence("absent", paths, boxes)
    unknown = VideoSequence("unknown", paths, boxes, gaps_unknown=True)
    found = follow(_TemplateTracker(), filmed([absent, unknown]))
    assert found.sequence.tolist() == [0] * 11 + [1] * 8
    assert found.visible.tolist() == [1] * 4 + [0] * 3 + [1] * 4 + [1] * 8
    assert found.right.tolist() == (found.visible == 1).tolist()


def test_calibrate_command_reports_and_writes_the_map(store, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(calibrate, "DimpTracker", _TemplateTracker)
    path = tmp_path / "weights.safetensors"
    torch.manual_seed(0)
    net = build_model("dimp_lite")
    next(net.parameters()).data.fill_(1e5)  # beyond half precision
    info = json.dumps({"architecture": "dimp_lite", "commit": "abc", "later": "an entry of a newer version"})
    path.write_bytes(save(stored_tensors(net), metadata={"note": "of another program: \u00e9", "dimp_ros": info}))
    os.link(path, tmp_path / "backup")
    before = path.read_bytes()
    assert calibrate.main([str(path), "--store", str(store), "--sequences", "5"]) == 0
    captured = capsys.readouterr().out
    for words in ("before: as stored", "logistic", "after: 8 knots", "AUROC", "ECE", "hidden", "0.5 at an evidence of"):
        assert words in captured
    assert path.read_bytes() == before
    assert calibrate.main([str(path), "--store", str(store), "--sequences", "5", "--write"]) == 0
    info = read_header(path).info
    assert len(info.confidence_knots) == calibrate.KNOTS and info.commit == "abc"
    assert info.confidence.threshold_50 is not None
    assert (tmp_path / "backup").read_bytes() == before
    (header, tensors), (old, old_tensors) = _parts(path.read_bytes()), _parts(before)
    own, old_own = (json.loads(each["__metadata__"].pop("dimp_ros")) for each in (header, old))
    assert own.pop("confidence_knots") and own == old_own
    assert header == old and tensors == old_tensors and (len(path.read_bytes()) - len(tensors)) % 8 == 0


def _parts(content):
    length = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:length]), content[length:]


def _fitted(monkeypatch, changed=lambda: None):
    """Let the command find half of the frames right, and ``changed`` happen while it measures."""
    count = 40
    right = np.arange(count) % 2 * np.linspace(0.5, 1, count)
    found = calibrate.Followed(np.arange(count) // 8, right, right, np.ones(count), np.zeros(count, bool))
    monkeypatch.setattr(calibrate, "DimpTracker", _TemplateTracker)
    monkeypatch.setattr(calibrate, "follow", lambda tracker, source: changed() or found)


def _replace(path):
    other = path.with_name("other")
    other.write_bytes(path.read_bytes()[:-2] + b"\x00\x3c")
    os.replace(other, path)


def _in_place(path):
    with path.open("r+b") as file:
        file.seek(-2, 2)
        file.write(b"\x00\x3c")


@pytest.mark.parametrize("change", [_replace, _in_place, Path.unlink])
def test_map_is_not_stored_with_other_weights(change, tmp_path, monkeypatch, capsys):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(find_weights("dimp_lite").read_bytes())
    after = []

    def changed():
        change(path)
        after.append(path.read_bytes() if path.exists() else None)

    _fitted(monkeypatch, changed)
    assert calibrate.main([str(path), "--store", str(tmp_path), "--write"]) == 2
    said = capsys.readouterr()
    assert "knots (evidence: confidence)" in said.out and said.err.count("\n") == 1
    assert after == [path.read_bytes() if path.exists() else None]


def _protect(path):
    path.chmod(0o444)


def _access_by_mode(path, wanted):
    """Stand in for `os.access`, which lets root write everywhere."""
    return bool(os.stat(path).st_mode >> 6 & wanted == wanted)


@pytest.mark.parametrize("damage", [_protect, lambda path: path.write_bytes(b"weights")], ids=["protected", "damaged"])
def test_map_that_cannot_be_stored_is_refused_first(damage, tmp_path, monkeypatch, capsys):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(find_weights("dimp_lite").read_bytes())
    damage(path)
    monkeypatch.setattr(os, "access", _access_by_mode)
    monkeypatch.setattr(calibrate, "DimpTracker", _TemplateTracker)
    monkeypatch.setattr(calibrate, "follow", lambda *_: pytest.fail("it measures"))
    assert calibrate.main([str(path), "--store", str(tmp_path), "--write"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("right", "words"),
    [([1] * 40, "40 of 40"), ([0] * 40, "0 of 40"), ([], "0 of 0"), ([0] * 8 + [1] * 32, "32 of 32")],
    ids=["all", "none", "no frame", "one fold only"],
)  # fmt: skip
def test_nothing_to_calibrate_is_one_line(right, words, tmp_path, monkeypatch, capsys):
    frames = len(right)
    found = calibrate.Followed(
        np.arange(frames) // 8,
        np.linspace(0.0, 1.0, frames),
        np.array(right, float),
        np.ones(frames),
        np.zeros(frames, bool),
    )
    monkeypatch.setattr(calibrate, "DimpTracker", _TemplateTracker)
    monkeypatch.setattr(calibrate, "follow", lambda tracker, source: found)
    path = tmp_path / "weights.safetensors"
    weights = find_weights("dimp_lite").read_bytes()
    path.write_bytes(weights)
    assert calibrate.main([str(path), "--store", str(tmp_path), "--write"]) == 2
    said = capsys.readouterr()
    assert f"{words} frames are right: nothing to calibrate" in said.err and said.err.count("\n") == 1
    assert not said.out and path.read_bytes() == weights


def test_one_image_in_twenty_is_held_out():
    names = [f"set-a_{i:05d}" for i in range(20_000)]
    share = np.mean([held_out(name) for name in names])
    assert share == pytest.approx(0.05, abs=0.006)
    assert [name for name in names[:150] if held_out(name)] == [name for name in names[:150] if held_out(name)]
    assert held_out("davis_motorbike") and not held_out("davis_bear")  # a change would mix training and check


@pytest.mark.parametrize("name", ["reference.pth", "dimp_lite", "none.safetensors"])
def test_calibrated_map_is_written_to_safetensors_only(tmp_path, name, capsys):
    path = tmp_path / name
    if path.suffix == ".pth":
        path.write_bytes(b"a checkpoint")
    with pytest.raises(SystemExit):
        calibrate.main([str(path), "--store", str(tmp_path), "--write"])
    assert "is no such file" in capsys.readouterr().err and (path.suffix != ".pth" or path.stat().st_size == 12)
