# SPDX-License-Identifier: Apache-2.0
"""Creating the tracker to evaluate from a name and settings on the command line."""

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

from dimp_ros.evaluation.tracker_api import Prediction
from dimp_ros.evaluation.trackers import ABLATIONS, TrackerSpec, override, split_names
from dimp_ros.geometry.box import Box

PICTURE = np.zeros((6, 8, 3), np.uint8)


@dataclass(frozen=True)
class _Config:
    learn: bool = True
    peak: float = 0.25
    name: str = "x"
    sides: tuple[int, ...] = (1, 2)
    size: int = 50


def test_last_box_counts_where_the_target_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    class Result(NamedTuple):
        box: Box | None
        last_box: Box
        confidence: float

    class LosesIt:
        def __init__(self, model: str, device: str, precision: str, backend: str) -> None:
            assert (model, device, precision, backend) == ("some/file.safetensors", "cpu", "float32", "torch")
            self.config = _Config(sides=(7,))

        def warm_up(self) -> None:
            assert self.config == _Config(sides=(7,), peak=0.5)

        def init(self, image: Any, box: Box) -> None:
            self.box = box

        def update(self, image: Any) -> Result:
            return Result(None, self.box, 0.1)

    module = ModuleType("dimp_ros.tracker")
    vars(module).update(DimpTracker=LosesIt)
    monkeypatch.setitem(sys.modules, "dimp_ros.tracker", module)

    tracker = TrackerSpec("dimp:some/file.safetensors", device="cpu", settings={"peak": "0.5"}).make()
    tracker.init(PICTURE, Box(1, 2, 3, 4))

    assert tracker.update(PICTURE) == Prediction(Box(1, 2, 3, 4), found=False, confidence=0.1)


def test_one_run_holds_variants_of_a_model() -> None:
    general = {"init_steps": "3", "seed": "5"}
    plain, variant = (
        TrackerSpec(name, settings=general) for name in ("dimp_lite", "dimp_lite@init_steps=0@augment=no")
    )

    assert (variant.name, variant.base, variant.model) == (
        "dimp_lite@init_steps=0@augment=no",
        "dimp_lite",
        "dimp_lite",
    )
    assert plain.all_settings == general
    assert variant.all_settings == {"init_steps": "0", "seed": "5", "augment": "no"}  # a variant's own come last
    assert plain.fingerprint()["settings"] != variant.fingerprint()["settings"]
    assert plain.fingerprint()["weights_sha256"] == variant.fingerprint()["weights_sha256"] is not None
    assert TrackerSpec("dimp:/me@home/x.safetensors@seed=1").model == "/me@home/x.safetensors"


def test_trackers_are_separated_by_commas_outside_of_values() -> None:
    text = "kcf, a@augment_rotations=[10, -10]@augment_blurs=((3,1),(1,3)),dimp:/x/y.safetensors ,"

    assert split_names(text) == [
        "kcf",
        "a@augment_rotations=[10, -10]@augment_blurs=((3,1),(1,3))",
        "dimp:/x/y.safetensors",
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("dimp_lite@init_stops=0", "no setting 'init_stops'"),
        ("dimp_lite@init_steps=-1", "init_steps is -1; it must be from 0"),
        ("kcf@init_steps=0", "kcf has no settings"),
    ],
)
def test_a_wrong_variant_is_refused_before_anything_runs(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        TrackerSpec(name).check()


def test_every_ablation_is_a_valid_variant() -> None:
    assert len(set(ABLATIONS)) == 10
    for variant in ABLATIONS:
        TrackerSpec(f"dimp_lite{variant}").check()


def test_settings_replace_fields_in_the_fields_own_type() -> None:
    settings = {"learn": "false", "peak": "1", "name": "7", "sides": "[3, 4]", "size": "9"}

    changed = override(_Config(), settings)

    assert changed == _Config(False, 1.0, "7", (3, 4), 9)
    assert type(changed.peak) is float


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("peek", "1", "no setting 'peek' in _Config; there are: learn, peak"),
        ("peak.size", "1", "no setting 'peak.size'"),
        ("peak", "high", "expected float, like 0.25"),
        ("learn", "2", "expected bool, like True"),
        ("size", "2.5", "expected int, like 50"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(key: str, value: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        override(_Config(), {key: value})
