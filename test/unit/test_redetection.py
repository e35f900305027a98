# SPDX-License-Identifier: Apache-2.0
"""Re-detection without a network: search boxes, and classification of what was found."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimp_ros.geometry.box import Box
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.localization import Localization, Outcome
from dimp_ros.tracker.redetection import (
    Candidate,
    RedetectionState,
    TrackStatus,
    continues,
    is_redetection,
    search_area,
    tiles,
)

CONFIG = TrackerConfig(
    search_tiles=4, trusted_frames=10, find_threshold=0.4, find_distractor_ratio=0.8, find_frames=3, find_motion=1.0
)
BOX = Box(600, 300, 60, 50)
SIZE = (1280, 720)
NOWHERE = Localization(Outcome.NOT_FOUND, (9, 9), 0.1, 0.0)


def peak(score, ratio=0.0, outcome=Outcome.NORMAL):
    return Localization(outcome, (9, 9), score, ratio)


def lost_for(frames, config=CONFIG):
    """Return a search that has been going on for so many frames."""
    search = RedetectionState()
    for _ in range(frames):
        status, _ = search.classify([NOWHERE], config)
        assert search.confirm(status, BOX, None, config) is TrackStatus.LOST
    assert search.frames_lost == frames
    return search


sizes = st.tuples(st.integers(8, 1500), st.integers(8, 1500))
boxes = st.tuples(st.floats(-0.2, 1.2), st.floats(-0.2, 1.2), st.floats(8, 300), st.floats(8, 300))


@settings(deadline=None, max_examples=200)
@given(sizes, boxes, st.sampled_from([1.0, 1.5, 2.0]), st.floats(0, 1), st.floats(0, 1))
def test_every_position_is_well_inside_a_tile_or_search_area(size, place, scale, u, v):
    config = TrackerConfig(search_tile_scale=scale)
    box = Box.from_center(place[0] * size[0], place[1] * size[1], *place[2:])
    point, half = (u * size[0], v * size[1]), math.sqrt(box.area) / 2

    def shows(window):
        """Whether all that is within half a target's size of the point, and in the image, is in the window."""
        return all(
            corner <= max(at - half, 0.0) + 1e-6 and corner + window.side >= min(at + half, extent) - 1e-6
            for corner, at, extent in zip((window.x, window.y), point, size, strict=True)
        )

    assert any(shows(window) for window in (search_area(box, config), *tiles(box, size, config)))


@settings(deadline=None)
@given(sizes, boxes)
def test_tiles_are_nearest_first_and_inside_large_images(size, place):
    box = Box.from_center(place[0] * size[0], place[1] * size[1], *place[2:])
    here = [min(max(at, 0), extent) for at, extent in zip(box.center, size, strict=True)]
    found = tiles(box, size, CONFIG)
    distances = [math.dist((w.x + w.side / 2, w.y + w.side / 2), here) for w in found]
    assert distances == pytest.approx(sorted(distances))
    assert len({(round(w.x, 6), round(w.y, 6)) for w in found}) == len(found)
    for window in found:
        for corner, at, extent in zip((window.x, window.y), here, size, strict=True):
            middle = corner + window.side / 2
            assert middle == pytest.approx(at) or middle == pytest.approx(extent / 2) or corner >= -1e-6
            assert (
                middle == pytest.approx(at)
                or middle == pytest.approx(extent / 2)
                or (corner + window.side <= extent + 1e-6)
            )


def test_image_within_the_search_area_has_no_tile():
    assert tiles(Box(140, 100, 40, 40), (200, 200), CONFIG) != []
    assert tiles(Box(80, 80, 40, 40), (200, 200), CONFIG) == []
    assert RedetectionState(frames_lost=5).next_tiles(Box(80, 80, 40, 40), (200, 200), 4, CONFIG) == []


def test_a_720p_image_is_searched_in_less_than_ten_frames():
    assert 20 < len(tiles(Box(600, 300, 50, 50), SIZE, CONFIG)) < 40


def test_tiles_of_consecutive_frames_cover_the_image_and_repeat():
    search, every = RedetectionState(frames_lost=1), tiles(BOX, SIZE, CONFIG)
    frames = [search.next_tiles(BOX, SIZE, 4, CONFIG) for _ in range(-(-len(every) // 4) + 1)]
    assert all(len(frame) == 4 for frame in frames)
    sought = [window for frame in frames for window in frame]
    assert sought[: len(every)] == every
    assert sought[len(every) :] == every[: len(sought) - len(every)]


def test_no_tile_is_searched_twice_in_a_frame():
    every = tiles(BOX, (400, 300), CONFIG)
    assert RedetectionState(frames_lost=1, tile_index=1).next_tiles(BOX, (400, 300), 64, CONFIG) == [
        *every[1:],
        every[0],
    ]


def test_tiles_follow_a_changed_image_size():
    search = RedetectionState(frames_lost=1)
    for size in (SIZE, (160, 120), (16, 16), (5000, 3000), SIZE):
        every = tiles(BOX, size, CONFIG)
        assert set(search.next_tiles(BOX, size, 4, CONFIG)) <= set(every)


def test_no_tile_is_searched_while_confirmed_or_tentative():
    assert RedetectionState().next_tiles(BOX, SIZE, 4, CONFIG) == []
    assert RedetectionState(frames_lost=3, candidate=Candidate(BOX, 1)).next_tiles(BOX, SIZE, 4, CONFIG) == []
    assert RedetectionState(frames_lost=3).next_tiles(BOX, SIZE, 0, CONFIG) == []


@pytest.mark.parametrize("outcome", [Outcome.NORMAL, Outcome.HARD_NEGATIVE, Outcome.UNCERTAIN])
def test_a_tracked_target_is_confirmed_however_low_its_peak(outcome):
    assert RedetectionState().classify([peak(0.26, 0.95, outcome)], CONFIG) == (TrackStatus.CONFIRMED, 0)


def test_last_position_is_trusted_only_soon_after_a_loss():
    assert lost_for(10).classify([peak(0.3)], CONFIG)[0] is TrackStatus.CONFIRMED
    assert lost_for(11).classify([peak(0.3)], CONFIG)[0] is TrackStatus.LOST
    assert lost_for(11).classify([peak(0.5)], CONFIG)[0] is TrackStatus.TENTATIVE


def test_without_a_search_the_last_place_is_always_trusted():
    off = TrackerConfig(search_tiles=0, trusted_frames=0)
    assert lost_for(500, off).classify([peak(0.26)], off) == (TrackStatus.CONFIRMED, 0)


def test_of_several_tiles_the_highest_redetection_is_taken():
    places = [NOWHERE, peak(0.5), peak(0.9, ratio=0.9), peak(0.7), peak(0.2)]
    assert lost_for(2).classify(places, CONFIG) == (TrackStatus.TENTATIVE, 3)


@pytest.mark.parametrize(
    ("place", "config", "found"),
    [
        (peak(0.41), CONFIG, True),
        (peak(0.39), CONFIG, False),
        (peak(0.6, ratio=0.81), CONFIG, False),
        (peak(0.6, ratio=0.79), CONFIG, True),
        (Localization(Outcome.NOT_FOUND, (0, 0), 0.45, 0.0), TrackerConfig(not_found_threshold=0.5), False),
        (Localization(Outcome.NOT_FOUND, (0, 0), math.nan, 0.0), CONFIG, False),
    ],
)
def test_redetection_needs_a_high_and_unambiguous_peak(place, config, found):
    assert is_redetection(place, config) is found


def test_redetection_is_confirmed_in_its_third_frame():
    search, box = lost_for(20), Box(100, 100, 60, 50)
    assert search.confirm(TrackStatus.TENTATIVE, BOX, box, CONFIG) is TrackStatus.TENTATIVE
    for step, expected in ((1, TrackStatus.TENTATIVE), (2, TrackStatus.CONFIRMED)):
        assert search.classify([peak(0.5)], CONFIG) == (TrackStatus.TENTATIVE, 0)
        here = search.candidate.box
        assert search.confirm(TrackStatus.TENTATIVE, here, Box(100 + 30 * step, 100, 60, 50), CONFIG) is expected
    assert (search.frames_lost, search.tile_index, search.candidate) == (0, 0, None)


@pytest.mark.parametrize("after", [NOWHERE, peak(0.39), peak(0.9, ratio=0.9)])
def test_a_failed_candidate_is_dropped_and_search_continues(after):
    search = lost_for(2)
    search.next_tiles(BOX, SIZE, 4, CONFIG)
    search.confirm(TrackStatus.TENTATIVE, BOX, Box(100, 100, 60, 50), CONFIG)
    status, _ = search.classify([after], CONFIG)
    assert status is TrackStatus.LOST
    assert search.confirm(status, Box(100, 100, 60, 50), None, CONFIG) is TrackStatus.LOST
    assert (search.candidate, search.frames_lost) == (None, 4)
    assert search.next_tiles(BOX, SIZE, 4, CONFIG) == tiles(BOX, SIZE, CONFIG)[4:8]


@pytest.mark.parametrize(
    "box", [Box(170, 100, 60, 50), Box(100, 160, 60, 50), Box(90, 90, 100, 75), Box(115, 112, 30, 25)]
)
def test_a_find_that_jumps_or_changes_its_size_is_dropped(box):
    search = lost_for(2)
    search.confirm(TrackStatus.TENTATIVE, BOX, Box(100, 100, 60, 50), CONFIG)
    assert search.confirm(TrackStatus.TENTATIVE, Box(100, 100, 60, 50), box, CONFIG) is TrackStatus.LOST
    assert search.candidate is None


def test_a_find_may_be_anywhere_but_not_of_another_size():
    assert continues(BOX, Box(0, 0, 60, 50), CONFIG, moved=True)
    assert not continues(BOX, Box(0, 0, 60, 50), CONFIG, moved=False)
    assert not continues(BOX, Box(0, 0, 120, 100), CONFIG, moved=True)


def test_with_one_frame_a_find_is_the_target_at_once():
    config = TrackerConfig(find_frames=1)
    assert lost_for(3, config).confirm(TrackStatus.TENTATIVE, BOX, Box(0, 0, 60, 50), config) is TrackStatus.CONFIRMED


# The size that is sought


def seen(frames, lost, config=CONFIG):
    """Return a search with boxes ``(w, h, peak)`` remembered, lost for so many frames."""
    search = RedetectionState()
    for w, h, score in frames:
        search.remember_size(Box(0, 0, w, h), score, config)
    search.frames_lost = lost
    return search


SLID_AWAY = [*[(22, 54, 0.9)] * 40, *[(20, 30, 0.6)] * 10, *[(16, 13, 0.5)] * 10]


def test_occluded_target_is_searched_in_its_usual_size():
    piece, config = Box(100, 200, 16, 13), CONFIG
    assert seen(SLID_AWAY, 0).search_box(piece, config) == piece
    assert seen(SLID_AWAY, config.trusted_frames).search_box(piece, config) == piece
    whole = seen(SLID_AWAY, config.trusted_frames + 1).search_box(piece, config)
    assert whole.center == piece.center and (whole.w, whole.h) == (22, 54)


def test_usual_size_is_of_the_remembered_frames_only():
    config = TrackerConfig(remembered_frames=5)
    frames = [(20, 20, 0.9)] * 50 + [(80, 80, 0.8)] * 5
    found = seen(frames, 50, config).search_box(Box(0, 0, 80, 80), config)
    assert (found.w, found.h) == (80, 80)


def test_without_memory_the_last_size_is_sought():
    config = TrackerConfig(remembered_frames=0)
    piece = Box(100, 200, 16, 13)
    assert seen(SLID_AWAY, 50, config).search_box(piece, config) == piece
    assert seen(SLID_AWAY, 50).search_box(piece, config) == piece  # switched off while it is followed
    assert RedetectionState(frames_lost=50).search_box(piece, CONFIG) == piece
