# SPDX-License-Identifier: Apache-2.0
"""Making the tracker from parameters: what reaches it, and the remedy when it cannot be made."""

from __future__ import annotations

import sys

import pytest

from dimp_ros.node.loading import TrackerUnavailable, load_tracker


class Parameters(dict):
    """Stands in for the node's parameter handler."""

    def __init__(self, settings: dict | None = None, **values: str) -> None:
        super().__init__({"model": "dimp_lite", "weights": "random", "device": "cpu", **values})
        self._settings = settings or {}

    def tracker_settings(self) -> dict:
        """Return the settings that the user has changed."""
        return self._settings


def test_without_torch_the_remedy_is_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "dimp_ros.tracker.tracker", raising=False)
    with pytest.raises(TrackerUnavailable, match=r"'torch' is missing.*pip install torch"):
        load_tracker(Parameters())


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"model": "/no/such/file.safetensors", "weights": ""}, "/no/such/file.safetensors"),
        ({"device": "abacus"}, "abacus"),
        ({"weights": "heavy"}, "heavy"),
        ({"settings": {"best_boxes": 60}}, "best_boxes"),
    ],
)
def test_a_wrong_parameter_becomes_one_line_that_names_it(wrong, word):
    pytest.importorskip("torch", reason="torch is not installed")
    with pytest.raises(TrackerUnavailable) as error:
        load_tracker(Parameters(**wrong))
    assert word in str(error.value) and "\n" not in str(error.value)


def test_changed_settings_reach_the_tracker_and_the_others_stay_as_the_weights_ask():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    del torch
    from dimp_ros.tracker import DimpTracker

    plain = DimpTracker("dimp_lite", "cpu", weights="random").config
    changed = load_tracker(Parameters({"update_interval": 7})).config
    assert changed.update_interval == 7 and plain.update_interval != 7
    assert (changed.crop_size, changed.search_scale, changed.seed) == (plain.crop_size, plain.search_scale, plain.seed)
