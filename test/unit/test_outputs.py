# SPDX-License-Identifier: Apache-2.0
"""Output files: never onto an input, and complete or absent."""

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from dimp_ros.apps.recording.annotated_video import AnnotatedVideo, BackgroundVideo
from dimp_ros.files.inputs import require_inside, require_regular_file
from dimp_ros.files.outputs import (
    OutputFile,
    OutputFolder,
    WriteFailed,
    append_line,
    check_outputs,
    in_place,
    write_text,
)
from dimp_ros.images.files import write_image
from dimp_ros.images.video import VideoWriter

BEFORE = "what was there before"


@pytest.fixture
def film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file that is read; its folder is the current one."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "film.mp4"
    path.write_text(BEFORE)
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "1.png").write_text(BEFORE)
    return path


def _symlink(film: Path) -> Path:
    link = film.with_name("link")
    link.symlink_to(film)
    return link


def _link_to_link(film: Path) -> Path:
    link = film.with_name("second")
    link.symlink_to(_symlink(film))
    return link


def _hard_link(film: Path) -> Path:
    link = film.with_name("hard")
    os.link(film, link)
    return link


def _through_linked_folder(film: Path) -> Path:
    (film.parent / "other").symlink_to(film.parent)
    return film.parent / "other" / film.name


NAMES: list[Callable[[Path], Path]] = [
    lambda film: film,
    lambda film: Path(film.name),
    lambda film: Path("frames/../film.mp4"),
    _symlink,
    _link_to_link,
    _hard_link,
    _through_linked_folder,
]


@pytest.mark.parametrize("name", NAMES)
def test_output_onto_input_is_refused_however_named(film: Path, name: Callable[[Path], Path]) -> None:
    with pytest.raises(ValueError, match=r"--json .* would overwrite SOURCE .*film.mp4; give --json another name"):
        check_outputs([("--json", name(film))], [("SOURCE", film)])


@pytest.mark.parametrize(
    "name", ["frames", "frames/1.png", "frames/new.json", "./frames/../frames/x", "linked", "hard"]
)
def test_output_into_input_folder_is_refused(film: Path, name: str) -> None:
    os.link("frames/1.png", "hard")
    outside = film.with_name("linked")
    outside.write_text(BEFORE)
    (film.parent / "frames" / "2.png").symlink_to(outside)
    with pytest.raises(ValueError, match="--json"):
        check_outputs([("--json", Path(name))], [("SOURCE", Path("frames"))])


@pytest.mark.parametrize("second", ["out", "./out", "frames/../out", "OUT", "Out"])
def test_two_outputs_under_one_name_are_refused(film: Path, second: str) -> None:
    with pytest.raises(ValueError, match="--json and --out are both"):
        check_outputs([("--json", Path("out")), ("--out", Path(second))], [])


@pytest.mark.parametrize(
    ("name", "reason"), [("frames", "is a folder"), ("none/x", "no folder none"), ("film.mp4/x", "no folder film.mp4")]
)
def test_impossible_output_is_refused_before_the_work(film: Path, name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_outputs([("--json", Path(name))], [])
    with pytest.raises(ValueError, match=r"--out film.mp4 is a file"):
        check_outputs([], [], folders=[("--out", Path("film.mp4"))])


@pytest.mark.parametrize("link", ["results.json", "pairs/kcf/a.json", "pairs"])
@pytest.mark.parametrize("target", ["film.mp4", "frames/1.png", "frames"])
def test_output_folder_that_leads_into_an_input_is_refused(film: Path, link: str, target: str) -> None:
    place = Path("out", link)
    place.parent.mkdir(parents=True)
    place.symlink_to(film.parent / target)
    inputs = [("SOURCE", film), ("--sequences", Path("frames"))]
    with pytest.raises(ValueError, match=rf"{place} leads into .*; remove that link"):
        check_outputs([], inputs, folders=[("--out", Path("out"))])


@pytest.mark.parametrize("link", ["log.jsonl", "store/frames.bin"])
@pytest.mark.parametrize("target", ["film.mp4", "frames/1.png", "frames/below/2.png", "frames/linked.png"])
def test_output_folder_with_a_hard_link_of_an_input_is_refused(film: Path, link: str, target: str) -> None:
    Path("frames/below").mkdir()
    for name in ("frames/below/2.png", "outside.png"):
        Path(name).write_text(BEFORE)
    Path("frames/linked.png").symlink_to("../outside.png")
    place = Path("out", link)
    place.parent.mkdir(parents=True)
    os.link(Path(target).resolve(), place)
    inputs = [("SOURCE", film), ("--sequences", Path("frames"))]
    with pytest.raises(ValueError, match=rf"{place} leads into .*; remove that link"):
        check_outputs([], inputs, folders=[("--out", Path("out"))])


def test_output_folder_may_share_hard_links_with_another(film: Path) -> None:
    for folder in (Path("runs/a"), Path("runs/b")):
        folder.mkdir(parents=True)
    Path("runs/a/log.jsonl").write_text(BEFORE)
    os.link("runs/a/log.jsonl", "runs/b/log.jsonl")
    Path("runs/b/frames.bin").symlink_to("nothing")
    os.link(film, "runs/b/config.yaml")
    inputs = [("SOURCE", Path("frames")), ("CONFIG", Path("runs/b/config.yaml"))]
    check_outputs([], inputs, folders=[("--folder", Path("runs/b"))])


def test_input_folder_below_the_output_folder_may_hold_links(film: Path) -> None:
    Path("frames/2.png").symlink_to("1.png")
    os.link("frames/1.png", "frames/3.png")
    Path("elsewhere").symlink_to("/tmp")
    check_outputs([], [("--sequences", Path("frames"))], folders=[("--out", Path())])


def test_harmless_outputs_are_accepted(film: Path) -> None:
    Path("old").write_text(BEFORE)
    check_outputs(
        [("--json", Path("new.json")), ("--out", Path("old")), ("--log", Path("/dev/null")), ("--bag", None)],
        [("SOURCE", film), ("--model", Path("frames/none")), ("--like", None)],
        folders=[("--folder", Path("not/there/yet"))],
    )


def test_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(BEFORE)
    path.chmod(0o640)
    link = tmp_path / "link.json"
    link.symlink_to(path)
    with OutputFile(link) as partial:
        partial.write_text("new")
        assert path.read_text() == BEFORE and partial.suffix == ".json" and partial.name.startswith(".")
    assert path.read_text() == "new" and link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == ["link.json", "x.json"]


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_failure_leaves_what_was_there_before(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "x.json"
    path.write_text(BEFORE)
    expected = WriteFailed if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), OutputFile(path) as partial:
        partial.write_text("half")
        raise error
    assert path.read_text() == BEFORE and os.listdir(tmp_path) == ["x.json"]


def test_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "new", "")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_long_names_are_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250 + ".json")
    write_text(path, "new")
    assert path.read_text() == "new"


def test_devices_and_fifos_are_written_to_and_never_replaced(tmp_path: Path) -> None:
    with pytest.raises(WriteFailed, match="cannot write to /dev/full: No space left on device"):
        write_text(Path("/dev/full"), "text")
    with pytest.raises(ValueError, match="no regular file"):
        OutputFile(Path("/dev/null"))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE, text=True) as reader:
        write_text(fifo, "text")
        assert reader.communicate(timeout=10)[0] == "text"
    assert fifo.is_fifo()


@pytest.mark.parametrize("name", ["fifo", "link"])
def test_fifo_that_nobody_reads_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Opened as other files are, no signal but SIGKILL would end the wait of a program that keeps its results."""
    monkeypatch.setattr("dimp_ros.files.outputs.READER_SECONDS", 0.1)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    with pytest.raises(WriteFailed, match=f"cannot write to .*{name}: nobody reads from it"):
        write_text(tmp_path / name, "text")
    assert (tmp_path / "fifo").is_fifo()


@pytest.mark.parametrize("number", [errno.EPERM, errno.EBUSY])
def test_whole_output_that_cannot_take_its_name_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A file of another user in a sticky folder, and one that is mounted, can be written but not replaced."""

    def refuse(self: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "replace", refuse)
    (tmp_path / "out.json").write_text("before")
    with pytest.raises(WriteFailed, match=r"cannot be replaced \(.*the whole output is kept as .*\.partial\.json"):
        write_text(tmp_path / "out.json", "after")
    contents = {path.suffixes[-1]: path.read_text() for path in tmp_path.iterdir() if "partial" in path.name}
    assert contents == {".json": "after"} and (tmp_path / "out.json").read_text() == "before"


def test_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    output = OutputFolder(tmp_path / "bag")
    output.partial.mkdir()
    (output.partial / "data").write_text("x")
    assert not (tmp_path / "bag").exists()
    output.commit()
    assert (tmp_path / "bag" / "data").read_text() == "x" and os.listdir(tmp_path) == ["bag"]
    with pytest.raises(ValueError, match="exists already"):
        OutputFolder(tmp_path / "bag")


def test_folder_that_came_meanwhile_is_kept(tmp_path: Path) -> None:
    output = OutputFolder(tmp_path / "bag")
    output.partial.mkdir()
    (tmp_path / "bag").mkdir()
    with pytest.raises(WriteFailed, match="come to exist"):
        output.commit()
    assert os.listdir(tmp_path) == ["bag"]


def _image(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 255, (120, 160, 3), dtype=np.uint8)


def _write_video(path: Path) -> None:
    writer = VideoWriter(path, 20.0)
    for index in range(40):
        writer.write(_image(index))
    writer.close()


def _write_annotated(path: Path) -> None:
    with AnnotatedVideo(path) as video:
        for index in range(40):
            video.add_image(index * 50_000_000, _image(index))


def _write_in_background(path: Path) -> None:
    video = BackgroundVideo(path)
    for index in range(40):
        video.add_image(index * 50_000_000, lambda index=index: _image(index))  # type: ignore[misc]
    video.close()


@pytest.mark.parametrize("write", [_write_video, _write_annotated, _write_in_background])
def test_video_appears_when_it_is_complete(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "12:30.mp4")
    assert os.listdir(tmp_path) == ["12:30.mp4"]
    assert cv2.VideoCapture(str(tmp_path / "12:30.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 40


@pytest.mark.parametrize("fps", [1e-9, 0.0167, 8.791208, 59.9999, 93.4568, 119.88, 1234.5])
def test_any_frame_rate_can_be_written(tmp_path: Path, fps: float) -> None:
    writer = VideoWriter(tmp_path / "x.mp4", fps)
    writer.write(_image(0))
    writer.close()
    assert (tmp_path / "x.mp4").is_file()


@pytest.mark.parametrize(
    "write",
    [
        _write_video,
        _write_annotated,
        _write_in_background,
        lambda path: write_text(path, "x" * 200_000),
        lambda path: write_image(path.with_suffix(".png"), np.vstack([_image(i) for i in range(9)])),
    ],
)
def test_limited_file_size_is_an_error_and_leaves_nothing(tmp_path: Path, write: Callable[[Path], None]) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(WriteFailed, match="ulimit -f"):
            write(tmp_path / "x.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == []


def test_file_changed_in_place_is_named_and_leaves_hard_links_alone(tmp_path: Path) -> None:
    path, other = tmp_path / "log.jsonl", tmp_path / "other.jsonl"
    path.write_text(BEFORE)
    os.link(path, other)
    with in_place(path, "ab") as file:
        file.write(b"line")
    assert path.read_text() == BEFORE + "line" and other.read_text() == BEFORE
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    try:
        with pytest.raises(WriteFailed, match=r"log.jsonl could not be written .*ulimit -f"), in_place(path, "ab") as f:
            f.write(b"x" * 2_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text().startswith(BEFORE + "line")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: Path(path).symlink_to("/dev/zero"), os.mkdir])
def test_only_regular_files_are_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x")
    with pytest.raises(ValueError, match="only regular files are read"):
        require_regular_file(tmp_path / "x")
    (tmp_path / "y").write_text("")
    assert require_regular_file(tmp_path / "y") == tmp_path / "y"


def test_files_outside_of_a_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "bag"
    folder.mkdir()
    (tmp_path / "secret").write_text("")
    (folder / "link").symlink_to(tmp_path / "secret")
    for path in (folder / "../secret", Path("/etc/passwd"), folder / "link"):
        with pytest.raises(ValueError, match="lies outside"):
            require_inside(path, folder)
    (folder / "data").write_text("")
    assert require_inside(folder / "data", folder)


def test_sigterm_leaves_no_half_file(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from dimp_ros.files.outputs import OutputFile\n"
        "with OutputFile(Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half'); print('begun', flush=True); time.sleep(30)"
    )
    path = tmp_path / "x"
    path.write_text(BEFORE)
    with subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGTERM)
    assert path.read_text() == BEFORE


@pytest.mark.parametrize("name", ["film.mp4", "b" * 250, "\U0001f3a5" * 62, "\u00e4" * 100 + "." + "\u00e4" * 24])
@pytest.mark.parametrize("kind", [OutputFile, OutputFolder])
def test_killed_run_leaves_what_it_wrote_named_after_the_output(tmp_path: Path, name: str, kind: type) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from dimp_ros.files import outputs\n"
        f"output = outputs.{kind.__name__}(Path(sys.argv[1]))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = tmp_path / name
    assert subprocess.run([sys.executable, "-c", program, path], check=False).returncode == -signal.SIGKILL
    (leftover,) = os.listdir(tmp_path)
    assert leftover.startswith(f".{name[:4]}") and ".partial" in leftover
    output = kind(path)  # the next run neither stumbles over it nor removes it: it may be all there is
    if isinstance(output, OutputFolder):
        output.partial.mkdir()
    output.commit()
    assert sorted(os.listdir(tmp_path)) == sorted([leftover, name])


@pytest.mark.parametrize("place", ["/proc/1", "/proc/1/new", "/sys/new/folder"])
def test_folder_that_takes_no_files_is_refused_in_words(place: str) -> None:
    with pytest.raises(WriteFailed, match=rf"^{place} could not be written .*writable"):
        check_outputs([], [], folders=[("--out", Path(place))])


@pytest.mark.parametrize(("before", "after"), [("", ""), ("a\n", "a\n"), ("a\nb", "a\nb\n"), ("ä", "ä\n")])
def test_a_line_is_added_below_one_that_was_cut_off(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "log"
    if before:
        path.write_text(before)
    append_line(path, "é")
    append_line(path, "d")
    assert path.read_text() == after + "é\nd\n"
