# SPDX-License-Identifier: Apache-2.0
"""Candidate tracks: which of several peaks is the target, on synthetic score maps."""

from typing import NamedTuple

import numpy as np
import pytest

from dimp_ros.geometry.box import Box
from dimp_ros.tracker.candidate_tracks import CandidateTracks, find_peaks
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.crop import SearchWindow
from dimp_ros.tracker.localization import Outcome, localize

SIZE = 20.0
CONFIG = TrackerConfig(candidates=6)
TARGET, OTHER = np.eye(8, dtype=np.float32)[:2]


class Thing(NamedTuple):
    """Something in the image: its centre, score and appearance."""

    x: float
    y: float
    score: float
    look: np.ndarray = TARGET


def seen(things, window):
    """Return the scores and features that things give in a search window."""
    scores, features = np.zeros((19, 19), np.float32), np.zeros((8, 18, 18), np.float32)
    rows, columns = np.mgrid[:19, :19]
    for x, y, score, look in things:
        row, column = (y - window.y) / window.scale / 16, (x - window.x) / window.scale / 16
        blob = score * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 2)
        scores = np.maximum(scores, blob.astype(np.float32))
        features += blob[:18, :18].astype(np.float32) * look[:, None, None]
    return scores, features


class Follower:
    """Follows the first of the things, as the tracker does: the window moves with the box."""

    def __init__(self, things, config=CONFIG):
        self.config = config
        self.box = Box.from_center(things[0].x, things[0].y, SIZE, SIZE)
        self.tracks = CandidateTracks()
        window = self.window()
        scores, features = seen(things, window)
        cell = tuple(int(n) for n in np.unravel_index(np.argmax(scores), scores.shape))
        self.tracks.start(find_peaks(scores, features, window, self.box, 6), cell)

    def window(self):
        """Return the search window around the last box."""
        return SearchWindow.around(self.box.center, 5 * SIZE, 288)

    def see(self, *things):
        """Show the next frame; return the outcome."""
        window = self.window()
        scores, features = seen(things, window)
        found = localize(scores, (3.6, 3.6), (9.0, 9.0), self.config)
        if self.config.candidates:
            peaks = find_peaks(scores, features, window, self.box, self.config.candidates)
            (found,) = self.tracks.decide([found], peaks, [window], SIZE, self.config)
        if found.outcome is not Outcome.NOT_FOUND:
            row, column = found.cell
            step = 16 * window.scale
            self.box = Box.from_center(window.x + step * column, window.y + step * row, SIZE, SIZE)
        return found.outcome

    def is_at(self, x, y):
        """Tell whether the box is on a thing there."""
        return np.hypot(self.box.center[0] - x, self.box.center[1] - y) < SIZE / 2


def crossing(config):
    """Let the target pass a look-alike that is a little higher from then on."""
    follower = Follower([Thing(0, 0, 0.9), Thing(60, 8, 0.8, OTHER)], config)
    for step in range(1, 21):
        follower.see(Thing(5 * step, 0, 0.9 - 0.01 * step), Thing(60 - 2 * step, 8, 0.8 + 0.01 * step, OTHER))
    return follower


def test_two_equal_peaks_that_cross_keep_their_identity():
    assert crossing(CONFIG).is_at(100, 0)
    assert not crossing(TrackerConfig(candidates=0)).is_at(100, 0)


def test_tracks_go_on_in_an_image_of_another_resolution():
    tracks = crossing(CONFIG).tracks
    places, motions = tracks.places.copy(), tracks.motions.copy()
    tracks.scale(2.0, 0.5)
    assert np.allclose(tracks.places, places * (2.0, 0.5)) and np.allclose(tracks.motions, motions * (2.0, 0.5))


@pytest.mark.parametrize(("candidates", "stays"), [(6, True), (0, False)])
def test_a_higher_distractor_that_appears_is_not_taken(candidates, stays):
    follower = Follower([Thing(0, 0, 0.9)], TrackerConfig(candidates=candidates))
    for step in range(1, 10):
        follower.see(Thing(2 * step, 0, 0.9), Thing(2 * step, 45 - 2 * step, 1.1, OTHER))
    assert follower.is_at(18, 0) == stays


def test_target_behind_a_look_alike_is_lost_until_seen_again():
    follower = Follower([Thing(0, 0, 0.9), Thing(40, 0, 0.5, OTHER)])
    for step in range(1, 6):
        follower.see(Thing(4 * step, 0, 0.9), Thing(40, 0, 0.5, OTHER))
    outcomes = [follower.see(Thing(40, 0, 0.6, OTHER)) for _ in range(5)]
    assert set(outcomes) == {Outcome.NOT_FOUND}
    assert follower.see(Thing(44, 8, 0.8), Thing(40, -20, 0.6, OTHER)) is not Outcome.NOT_FOUND
    assert follower.is_at(44, 8)


def test_a_target_that_fades_and_returns_is_no_look_alike():
    follower = Follower([Thing(0, 0, 0.9)])
    assert {follower.see(Thing(0, 0, 0.2)) for _ in range(8)} == {Outcome.NOT_FOUND}
    assert follower.see(Thing(2, 0, 0.6)) is Outcome.NORMAL


def test_look_alike_is_decided_by_its_score_once_the_target_is_gone():
    follower = Follower([Thing(0, 0, 0.9), Thing(40, 0, 0.5, OTHER)])
    for _ in range(5):
        follower.see(Thing(0, 0, 0.9), Thing(40, 0, 0.5, OTHER))
    outcomes = [follower.see(Thing(40, 0, 0.5, OTHER)) for _ in range(CONFIG.candidate_hidden + 1)]
    assert outcomes[-2:] == [Outcome.NOT_FOUND, Outcome.NORMAL]


def test_a_single_peak_is_followed_however_far_it_jumps():
    follower = Follower([Thing(0, 0, 0.9)])
    assert follower.see(Thing(38, -30, 0.6)) is Outcome.NORMAL
    assert follower.is_at(38, -30)


def test_peaks_are_in_image_coordinates_the_highest_first():
    window = SearchWindow(100.0, 50.0, 144.0, 288)
    things = [Thing(130, 80, 0.5), Thing(180, 80, 0.9), Thing(130, 140, 0.3), Thing(200, 150, 0.05)]
    peaks = find_peaks(*seen(things, window), window, Box(0, 0, 28, 28), 6)
    assert peaks.places == pytest.approx(np.array([(180, 80), (130, 80), (130, 140)]), abs=1.0)
    assert np.linalg.norm(peaks.looks, axis=1) == pytest.approx(np.ones(3))
    assert len(find_peaks(*seen(things, window), window, Box(0, 0, 28, 28), 2).scores) == 2


def test_a_map_without_peaks_is_followed_by_none():
    follower = Follower([Thing(0, 0, 0.9)])
    assert follower.see() is Outcome.NOT_FOUND
    assert follower.see(Thing(0, 0, 0.9)) is Outcome.NORMAL
