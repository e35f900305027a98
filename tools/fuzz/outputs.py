# SPDX-License-Identifier: Apache-2.0
"""Output paths of programs that write files: free ones, inputs under other names, each other, folders, full devices."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import cv2
from harness.bag_fixtures import START, picture, shots, write_ros2
from harness.tracker_double import BrightestTracker

from dimp_ros.apps.track import cli as track_cli
from dimp_ros.model.checkpoints import convert_cli
from dimp_ros.model.checkpoints.weights_file import find_weights
from dimp_ros.training import average_weights
from fuzz.draw import mutated
from fuzz.run import Attempt

FRAMES = 3
CONVERT_SHARE = 0.1
"""Share of inputs for programs that read whole weights files, which takes longer."""


class InputChanged(AssertionError):
    """A program changed or removed a file that it only reads."""


@contextmanager
def outputs() -> Iterator[Attempt]:
    """Run dimp-track and dimp-convert: an input never changes, an output is whole or absent."""
    cv2.setNumThreads(1)
    here = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="fuzz-outputs") as folder:
        template = Path(folder) / "template"
        _write_inputs(template)
        shutil.copy(find_weights("dimp_lite"), folder)
        try:
            yield lambda draw: _attempt(draw, template, Path(folder) / "work")
        finally:
            os.chdir(here)


def _write_inputs(folder: Path) -> None:
    """Write a film, images, bags and weights."""
    (folder / "images").mkdir(parents=True)
    (folder / "empty").mkdir()
    writer = cv2.VideoWriter(str(folder / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (96, 64))
    for number in range(FRAMES):
        writer.write(picture(number))
        cv2.imwrite(str(folder / "images" / f"{number}.png"), picture(number))
    writer.release()
    write_ros2(folder / "bag", shots(FRAMES))
    shutil.copy(folder / "bag" / "bag.mcap", folder / "one.mcap")
    (folder / "weights.safetensors").write_bytes(b"weights")
    (folder / "old.json").write_text("an older result")
    (folder / "old.mp4").write_text("an older film")


def _attempt(draw: Random, template: Path, folder: Path) -> bool:
    """Run a program in a fresh folder; return whether it accepted its paths."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
    os.chdir(folder)
    _write_links(draw, folder)
    before = _contents(folder)
    arguments, read, written = (_convert if draw.random() < CONVERT_SHARE else _track)(draw, folder)
    read = [Path(os.path.realpath(path)) for path in read]
    program, *options = arguments
    errors = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        try:
            status = _PROGRAMS[program](options)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
    shown = f"{' '.join(arguments)}\nexit status {status}\n{errors.getvalue()[-500:]}"
    _check(before, _contents(folder), read, written if status in (0, 1) else [], shown)
    if status == 0:
        for path in written:
            assert path.exists(), f"{path} was not written: {shown}"
    else:
        assert len(errors.getvalue()) > 20, f"no reason: {shown}"
    return status == 0


def _write_links(draw: Random, folder: Path) -> None:
    """Give the inputs other names."""
    for number in range(2):
        source = folder / draw.choice(("film.avi", "images/1.png", "one.mcap", "bag/bag.mcap", "weights.safetensors"))
        link = folder / f"link{number}{draw.choice(('', source.suffix, '.json', '.mp4', '.pth'))}"
        if draw.random() < 0.5:
            os.link(source, link)
        else:
            link.symlink_to(source if draw.random() < 0.5 else source.relative_to(folder))
    (folder / "linked").symlink_to(draw.choice(("images", "bag", ".", "nowhere")))


def _path(draw: Random, folder: Path, suffix: str) -> Path:
    """Return the path of an output: free, an input, another name of one, or an impossible one."""
    kind = draw.randrange(10)
    inputs = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    if kind < 4:
        return Path(draw.choice(("new", "images/../new", "linked/new", "empty/new", "NEW"))).with_suffix(suffix)
    if kind < 8:
        path = draw.choice(inputs)
        forms = (path, folder / path, Path("images/..") / path, Path("linked") / path, Path(str(path).swapcase()))
        return draw.choice(forms)
    if kind == 8:
        return Path(draw.choice(("/dev/full", "/dev/null", "nowhere/new", "film.avi/new", ".", "..", "", "x" * 300)))
    return Path(os.fsdecode(mutated(draw, b"new" + suffix.encode()).replace(b"\0", b"_").replace(b"/", b"_")) or "n")


def _track(draw: Random, folder: Path) -> tuple[list[str], list[Path], list[Path]]:
    """Return arguments of dimp-track, and the paths that it reads and writes."""
    source = draw.choice(("film.avi", "images", "bag", "one.mcap", "bag/bag.mcap", "./images/../film.avi", "linked"))
    box = ",".join(f"{value:g}" for value in START)
    model = draw.choice(("dimp_lite", "weights.safetensors"))
    arguments = ["dimp-track", source, f"--init={box}", "--model", model]
    written = []
    options = {"--json": ".json", "--out": draw.choice((".mp4", ".avi", ".xyz")), "--out-bag": ""}
    for option in draw.sample(list(options), draw.choice((1, 1, 2, 3))):
        path = _path(draw, folder, options[option])
        if written and draw.random() < 0.2:
            path = written[0]
        arguments.append(f"{option}={path}")
        written.append(path)
    return arguments, [Path(source), Path(model)], written


def _convert(draw: Random, folder: Path) -> tuple[list[str], list[Path], list[Path]]:
    """Return arguments of a program that writes weights, and the paths that it reads and writes."""
    path = _path(draw, folder, draw.choice((".safetensors", ".pth")))
    source = draw.choice((str(folder.parent / "dimp_lite.safetensors"), "weights.safetensors"))
    if draw.random() < 0.5:
        return ["dimp-convert", source, str(path)], [Path(source)], [path]
    return ["average", str(path), f"1={source}"], [Path(source)], [path]


def _run_track(options: list[str]) -> int:
    return track_cli.main(options, lambda model, device: BrightestTracker())


_PROGRAMS = {"dimp-track": _run_track, "dimp-convert": convert_cli.main, "average": average_weights.main}


def _contents(folder: Path) -> dict[str, bytes | str]:
    """Return the content of every file, and where every link leads."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def _check(
    before: dict[str, bytes | str], after: dict[str, bytes | str], read: list[Path], written: list[Path], shown: str
) -> None:
    """Assert that no input changed, nothing but the outputs did, and that no partial file is left."""
    allowed = [Path(os.path.realpath(path)) for path in written]
    for name in before.keys() | after.keys():
        if before.get(name) == after.get(name):
            continue
        real = Path(os.path.realpath(name))
        if any(real == path or path in real.parents for path in read) and name in before:
            raise InputChanged(f"{name} is an input and was changed: {shown}")
        if not any(real == path or path in real.parents for path in allowed):
            raise InputChanged(f"{name} was {'changed' if name in before else 'left behind'}: {shown}")
    assert not [name for name in after if ".partial" in name], f"a partial file is left: {shown}"
