# SPDX-License-Identifier: Apache-2.0
"""The map from score peaks to confidences: its guarantees, and its storage with the weights."""

import itertools
import json
import math
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from dimp_ros.model.checkpoints.checkpoint import load_model, save_weights
from dimp_ros.model.checkpoints.weights_file import WeightsInfo
from dimp_ros.model.confidence import DEFAULT_CONFIDENCE, ConfidenceMap
from dimp_ros.model.dimp import build_model

KNOTS = ((0.0, 0.02), (0.3, 0.3), (0.5, 0.7), (1.1, 0.98))

finite = st.floats(-5, 5)


@st.composite
def maps(draw):
    peaks = sorted(draw(st.sets(finite.map(lambda v: round(v, 3)), min_size=2, max_size=9)))
    values = sorted(draw(st.lists(st.floats(0, 1), min_size=len(peaks), max_size=len(peaks))))
    return ConfidenceMap(tuple(zip(peaks, values, strict=True)))


@given(maps(), st.lists(finite, min_size=2, max_size=20))
def test_confidence_never_falls_and_stays_from_0_to_1(mapping, peaks):
    values = [mapping(peak) for peak in sorted(peaks)]
    assert all(0 <= value <= 1 for value in values)
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(values))


def test_map_goes_through_its_knots_and_is_constant_beyond():
    mapping = ConfidenceMap(KNOTS)
    assert [mapping(peak) for peak, _ in KNOTS] == pytest.approx([value for _, value in KNOTS])
    assert mapping(0.4) == pytest.approx(0.5)
    assert (mapping(-3.0), mapping(9.0), mapping(math.inf), mapping(math.nan)) == (0.02, 0.98, 0.98, 0.0)


@given(maps())
def test_threshold_50_has_confidence_one_half(mapping):
    lowest, highest = mapping.knots[0][1], mapping.knots[-1][1]
    if lowest <= 0.5 <= highest:
        assert mapping(mapping.threshold_50) == pytest.approx(0.5, abs=1e-9)
    else:
        assert mapping.threshold_50 is None


@given(st.floats(-0.5, 1), st.floats(1, 50), st.floats(-1, 2))
def test_a_logistic_map_is_the_logistic_function(midpoint, slope, peak):
    mapping = ConfidenceMap.logistic(midpoint, slope)
    assert mapping(peak) == pytest.approx(1 / (1 + math.exp(-slope * (peak - midpoint))), abs=2e-4)
    assert mapping.threshold_50 == pytest.approx(midpoint)


@pytest.mark.parametrize(
    ("knots", "words"),
    [
        ((), "at least two"),
        (((0.1, 0.2),), "at least two"),
        (((0.1, 0.2), (0.1, 0.3)), "peaks must rise"),
        (((0.1, 0.3), (0.2, 0.2)), "must not fall"),
        (((0.1, -0.1), (0.2, 0.2)), "from 0 to 1"),
        (((0.1, 0.2), (0.2, 1.2)), "from 0 to 1"),
        (((0.1, 0.2), (0.2, math.nan)), "finite"),
    ],
)
def test_invalid_knots_are_refused(knots, words):
    with pytest.raises(ValueError, match=words):
        ConfidenceMap(knots)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return build_model("dimp_lite")


def test_map_survives_a_weights_file(tmp_path, net):
    path = tmp_path / "fitted.safetensors"
    save_weights(path, net, WeightsInfo("dimp_lite", confidence_knots=KNOTS))
    info = load_model(str(path))[1]
    assert info.confidence_knots == KNOTS
    assert info.confidence == ConfidenceMap(KNOTS)


def _rewrite(path, change):
    """Rewrite the metadata of a weights file."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        values = json.loads(file.metadata()["dimp_ros"])
    save_file(load_file(path), str(path), metadata={"dimp_ros": json.dumps(change(values))})


def test_entries_of_older_files_are_ignored(tmp_path, net):
    path = tmp_path / "old.safetensors"
    save_weights(path, net, WeightsInfo("dimp_lite"))
    _rewrite(path, lambda values: {**values, "confidence_slope": 7.0})
    info = load_model(str(path))[1]
    assert info == WeightsInfo("dimp_lite") and info.confidence == DEFAULT_CONFIDENCE
    assert info.confidence(0.4) == pytest.approx(0.5)


def test_a_file_with_a_falling_map_is_refused(tmp_path, net):
    path = tmp_path / "falling.safetensors"
    save_weights(path, net, WeightsInfo("dimp_lite", confidence_knots=KNOTS))
    _rewrite(path, lambda values: {**values, "confidence_knots": [[0.1, 0.9], [0.9, 0.1]]})
    with pytest.raises(ValueError, match="must not fall"):
        load_model(str(path))


def test_weights_info_is_plain_json():
    info = WeightsInfo("dimp_lite", confidence_knots=KNOTS)
    assert WeightsInfo(**json.loads(json.dumps(asdict(info)))).confidence_knots == KNOTS
