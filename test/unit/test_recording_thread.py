# SPDX-License-Identifier: Apache-2.0
"""Exit status and video of a recording that ends as it should, early, or while its node is closed."""

import threading

import pytest

from dimp_ros.apps.recording.recording_thread import RecordingFailed, run_recording


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("record", "status", "kept", "told"),
    [
        (lambda: 0, 0, False, ""),
        (lambda: 1, 1, False, ""),
        (lambda: _raise(RecordingFailed("no image")), 2, True, "[demo] no image\n"),
        (lambda: _raise(OSError("disk")), 2, True, "[demo] OSError: disk\n"),
    ],
)
def test_a_recording_that_ends_early_keeps_its_video(record, status, kept, told, capsys):
    finished = []
    assert run_recording("demo", record, lambda: finished.append(True) or 0, threading.Event()) == status
    assert bool(finished) == kept
    assert capsys.readouterr().err == told


def test_errors_of_closing_are_not_told_and_the_video_is_kept(capsys):
    closing, finished = threading.Event(), []
    closing.set()
    assert (
        run_recording("loop", lambda: _raise(RuntimeError("closed")), lambda: finished.append(True) or 3, closing) == 2
    )
    assert finished and capsys.readouterr().err == "[loop] the video lacks the last 3 images\n"


def test_a_video_that_cannot_be_finished_is_told(capsys):
    def failing():
        raise OSError("disk full")

    assert run_recording("loop", failing, failing, threading.Event()) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "[loop] there is no video: OSError: disk full"
