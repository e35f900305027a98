# SPDX-License-Identifier: Apache-2.0
"""Exit status and video of a recording that ends as it should, early, or while its node is closed."""

import threading

import pytest

from dimp_ros.apps.recording.recording_thread import RecordingFailed, run_recording
from dimp_ros.apps.recording.run_files import RunFiles, check_free

NAMES = ("result.json", "annotated.mp4", "plot.png")


def _raise(error):
    raise error


def run(folder, record, names=NAMES, name="demo", closing=None, keep_video=lambda: 0):
    return run_recording(name, record, keep_video, RunFiles(folder, names), closing or threading.Event())


def write(folder, word, names=NAMES, code=0):
    """Record a run whose files all say ``word``; an error instead of a code is raised after the names given."""
    files = RunFiles(folder, NAMES)

    def record():
        files.begin()
        for name in names:
            files.path(name).write_text(f'{{"rmw": "{word}"}}')
        return _raise(code) if isinstance(code, Exception) else code

    return run_recording("demo", record, lambda: 0, files, threading.Event())


def contents(folder):
    return {path.name: path.read_text()[9:-2] for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("record", "status", "kept", "told"),
    [
        (lambda: 0, 0, False, ""),
        (lambda: 1, 1, False, ""),
        (lambda: _raise(RecordingFailed("no image")), 2, True, "[demo] no image\n"),
        (lambda: _raise(OSError("disk")), 2, True, "[demo] OSError: disk\n"),
    ],
)
def test_a_recording_that_ends_early_keeps_its_video(record, status, kept, told, capsys, tmp_path):
    finished = []
    assert run(tmp_path, record, (), keep_video=lambda: finished.append(True) or 0) == status
    assert bool(finished) == kept
    assert capsys.readouterr().err == told


def test_errors_of_closing_are_not_told_and_the_video_is_kept(capsys, tmp_path):
    closing, finished = threading.Event(), []
    closing.set()

    def keep_video():
        finished.append(True)
        return 3

    closed = run(tmp_path, lambda: _raise(RuntimeError("closed")), (), "loop", closing, keep_video)
    assert closed == 2
    assert finished and capsys.readouterr().err == "[loop] the video lacks the last 3 images\n"


def test_a_video_that_cannot_be_finished_is_told(capsys, tmp_path):
    def failing():
        raise OSError("disk full")

    assert run(tmp_path, failing, (), "loop", keep_video=failing) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "[loop] there is no video: OSError: disk full"


@pytest.mark.parametrize("code", [0, 1], ids=["good", "bad figures"])
def test_files_of_a_whole_run_replace_those_of_an_earlier_one(tmp_path, capsys, code):
    assert write(tmp_path / "out", "first") == 0 and write(tmp_path / "out", "second", code=code) == code
    assert contents(tmp_path / "out") == dict.fromkeys(NAMES, "second")
    assert "result.json" in capsys.readouterr().out


@pytest.mark.parametrize("names", [NAMES[1:2], NAMES[:1], NAMES[1:], ()], ids="+".join)
@pytest.mark.parametrize("code", [2, 0, RecordingFailed("interrupted"), OSError("disk")], ids=str)
def test_a_run_that_is_not_whole_leaves_an_earlier_one_as_it_is(tmp_path, capsys, names, code):
    write(tmp_path, "first")
    capsys.readouterr()
    assert write(tmp_path, "second", names, code) == 2
    partial = {name.replace(".", ".partial."): "second" for name in names}
    assert contents(tmp_path) == dict.fromkeys(NAMES, "first") | partial
    said = capsys.readouterr().err
    assert all(name in said for name in partial)
    assert write(tmp_path, "third") == 0 and contents(tmp_path) == dict.fromkeys(NAMES, "third")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("figures", [None, "{}", "no json", "[]"])
def test_files_that_no_recording_wrote_are_refused(tmp_path, name, figures):
    (tmp_path / name).write_text("mine")
    if figures is not None:
        (tmp_path / "result.json").write_text(figures)
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    for refused in (check_free, RunFiles):
        with pytest.raises(ValueError, match=r"would be replaced, but no result\.json of a"):
            refused(tmp_path, NAMES)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_a_folder_in_use_is_refused_until_the_run_has_ended(tmp_path):
    files = RunFiles(tmp_path, NAMES)
    for refused in (check_free, RunFiles):
        with pytest.raises(ValueError, match="another run writes into"):
            refused(tmp_path, NAMES)
    run_recording("demo", lambda: 2, lambda: 0, files, threading.Event())
    check_free(tmp_path, NAMES)
