# SPDX-License-Identifier: Apache-2.0
"""Targets near others of their kind: which they are, and how their sequences are repeated."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from dimp_ros.datasets.film import Film
from dimp_ros.evaluation.confidence.near_look_alikes import back_and_forth, bounce, near_look_alikes, share_near
from dimp_ros.evaluation.sequences import VideoSequence

FRAMES = 20


def sequence(other=(60.0, 20.0, 20.0, 20.0), frames=FRAMES, **fields):
    boxes = np.tile([20.0, 20.0, 20.0, 20.0], (frames, 1))
    boxes[:, 0] += np.arange(frames)
    others = np.tile(other, (1, frames, 1)) + np.arange(frames)[:, None] * (1, 0, 0, 0)
    paths = tuple(Path(f"{number}.png") for number in range(frames))
    return VideoSequence("film#1", paths, boxes, look_alikes=others, **fields)


def test_frames_go_forwards_and_backwards():
    assert [bounce(index, 4) for index in range(9)] == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert [bounce(index, 1) for index in range(3)] == [0, 0, 0]


def test_boxes_and_look_alikes_go_with_the_frames():
    repeated = back_and_forth(sequence(), 50)
    assert len(repeated) == 50 and repeated.look_alikes.shape == (1, 50, 4)
    numbers = [int(path.stem) for path in repeated.frames]
    assert numbers[18:23] == [18, 19, 18, 17, 16]
    np.testing.assert_allclose(repeated.boxes[:, 0], np.add(numbers, 20))
    np.testing.assert_allclose(repeated.look_alikes[0, :, 0], np.add(numbers, 60))


def test_only_the_part_before_a_gap_is_repeated():
    gap = sequence(gaps_unknown=True)
    gap.boxes[17] = np.nan
    repeated = back_and_forth(gap, 40)
    assert max(int(path.stem) for path in repeated.frames) == 16
    assert np.isfinite(repeated.boxes).all() and not repeated.gaps_unknown
    gap.boxes[14] = np.nan
    assert back_and_forth(gap) is None


@pytest.mark.parametrize(
    ("other", "share"),
    [((50, 20, 20, 20), 1), ((61, 20, 20, 20), 0), ((40, 20, 5, 5), 0), ((30, 10, 40, 40), 0), ((np.nan,) * 4, 0)],
)
def test_a_target_is_near_if_close_and_of_similar_size(other, share):
    assert share_near(sequence(other)) == share
    alone = sequence()
    assert share_near(VideoSequence("alone", alone.frames, alone.boxes)) == 0


def test_targets_near_others_are_chosen_few_of_a_video():
    near, far = sequence((50, 20, 20, 20)), sequence((90, 20, 20, 20))
    assert [len(one) for one in near_look_alikes([far, near, near, near, near])] == [210] * 3


def test_a_film_is_repeated_and_pickled(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for number in range(FRAMES):
        writer.write(np.full((48, 64, 3), 10 * number, np.uint8))
    writer.release()
    repeated = back_and_forth(sequence(film=Film(tmp_path / "film.avi", 2), frames=16), 40)
    for film in (repeated.film, pickle.loads(pickle.dumps(repeated.film))):
        shades = [film(index).mean() / 10 for index in (0, 15, 16, 29, 30, 31)]
        np.testing.assert_allclose(shades, [2, 17, 16, 3, 2, 3], atol=0.3)
