# SPDX-License-Identifier: Apache-2.0
"""Which files are bags, and opening them: also without metadata.yaml, and when the recorder was cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dimp_ros.apps.bags.recovery import CutMcap, has_end

STORAGE_SUFFIXES = (".mcap", ".db3")


def is_bag(path: str) -> bool:
    """Tell whether ``path`` is a bag: a folder of rosbag2, one of its files, or a .bag of ROS 1."""
    place = Path(path)
    if place.is_dir():
        return (place / "metadata.yaml").is_file() or bool(_storage_files(place))
    return place.name.removesuffix(".zstd").endswith((*STORAGE_SUFFIXES, ".bag"))


def _storage_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.removesuffix(".zstd").endswith(STORAGE_SUFFIXES))


def open_readers(path: Path) -> tuple[list[Any], list[str]]:
    """Return open readers of a bag in the order of their times, and what is to be said about their state.

    :raises ValueError: if the bag cannot be opened, with what can be done about it.
    """
    if not path.exists():
        raise ValueError(f"no such file or folder: {path}")
    notes: list[str] = []
    if path.is_dir() and (path / "metadata.yaml").is_file():
        try:
            return [_open_reader(path)], notes
        except Exception as error:
            notes.append(f"{path} cannot be opened: {error_text(error)}; {_remedy(path)}")
    elif not path.is_dir():
        return _open_files([path], notes), notes
    files = _storage_files(path)  # the recorder had no time to write metadata.yaml, or to finish the last file
    if not files:
        raise ValueError(notes[0])
    notes = [f"{path / 'metadata.yaml'} is of no use here: the files are read one by one"] if notes else []
    return _open_files(files, notes), notes


def _open_files(files: list[Path], notes: list[str]) -> list[Any]:
    """Return readers of files; an MCAP file that was cut off is read as far as it goes, and noted."""
    readers: list[Any] = []
    for file in files:
        if file.suffix == ".zstd":
            raise ValueError(f"{file} is compressed as a whole: give the folder with its metadata.yaml, or run unzstd")
        try:
            readers.append(_open_reader(file))
        except Exception as error:
            cut = CutMcap(file) if file.suffix == ".mcap" and not has_end(file) else None
            if cut is None or not cut.message_count:
                for reader in readers:
                    reader.close()
                raise ValueError(f"{file} cannot be opened: {error_text(error)}; {_remedy(file)}") from error
            readers.append(cut)
            notes.append(f"{file} was cut off ({error}): it is used up to there")
    return sorted(readers, key=lambda reader: reader.start_time)


def _open_reader(path: Path) -> Any:
    """Return an open reader of rosbags."""
    from rosbags.rosbag1 import Reader as Reader1
    from rosbags.rosbag2 import Reader as Reader2

    reader = (Reader1 if path.suffix == ".bag" else Reader2)(path)
    reader.open()
    try:
        _check(reader)
    except ValueError:
        reader.close()
        raise
    return reader


def _check(reader: Any) -> None:
    """Check what a reader says of a bag: in a database, a text may be a number, and a number a text.

    :raises ValueError: with what is none.
    """
    for connection in reader.connections:
        if not isinstance(connection.topic, str) or not isinstance(connection.msgtype, str):
            raise ValueError(f"it is damaged: topic {connection.topic!r} of type {connection.msgtype!r} is no text")
    if not isinstance(reader.start_time, int) or not isinstance(reader.end_time, int):
        raise ValueError(f"it is damaged: its times, {reader.start_time!r} to {reader.end_time!r}, are none")


def _remedy(path: Path) -> str:
    """Return what to do about a bag that cannot be opened."""
    if path.is_dir():
        files = [file for file in _storage_files(path) if file.suffix in STORAGE_SUFFIXES]
        more = f"; {_remedy(files[-1])}" if files else ""
        return (
            f"`ros2 bag reindex {path}` makes metadata.yaml anew, and without that file the others are read alone{more}"
        )
    return {
        ".bag": f"`rosbag reindex {path}` mends a recording that was cut off",
        ".mcap": f"`mcap recover {path} -o RECOVERED.mcap` mends a recording of ROS 2 that was cut off",
    }.get(path.suffix, f"`sqlite3 {path} .recover | sqlite3 RECOVERED.db3` mends a recording that was cut off")


def error_text(error: Exception) -> str:
    """Return an error of a library as one line, with its kind: its text alone may be a key or nothing."""
    return f"{type(error).__name__}: {error}".replace("\n", " ")
