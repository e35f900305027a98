# SPDX-License-Identifier: Apache-2.0
"""Which files are bags, and opening them: also without metadata.yaml, and when the recorder was cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dimp_ros.apps.bags.decompression import bound_rosbags
from dimp_ros.apps.bags.mcap import MAGIC, SequentialMcap, has_end
from dimp_ros.files.inputs import require_regular_file

STORAGE_SUFFIXES = (".mcap", ".db3")
LARGEST_METADATA = 4 * 2**20
"""In bytes; metadata.yaml of a recording has a few kilobytes."""
DEEPEST_METADATA = 50
_YamlLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BEGINS = {".mcap": MAGIC, ".db3": b"SQLite format 3\0", ".bag": b"#ROSBAG V"}


def is_bag(path: str) -> bool:
    """Tell whether ``path`` is a bag: a folder of rosbag2, one of its files, or a .bag of ROS 1."""
    place = Path(path)
    if place.is_dir():
        return (place / "metadata.yaml").is_file() or bool(_storage_files(place))
    return _suffix(place) in (*STORAGE_SUFFIXES, ".bag")


def _suffix(path: Path) -> str:
    """Return the suffix of a file's name in small letters, that of what is in it where the file is compressed."""
    return Path(path.name.lower().removesuffix(".zstd")).suffix


def _storage_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _suffix(path) in STORAGE_SUFFIXES and path.name[0] != ".")


def open_readers(path: Path) -> tuple[list[Any], list[str]]:
    """Return open readers of a bag in the order of their times, and what is to be said about their state.

    :raises ValueError: if the bag cannot be opened, with what can be done about it.
    """
    if not path.exists():
        raise ValueError(f"no such file or folder: {path}")
    notes: list[str] = []
    if path.is_dir() and (path / "metadata.yaml").is_file():
        try:
            _check_folder(path)
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


def _check_folder(folder: Path) -> None:
    """Check what metadata.yaml may name before it is opened.

    :raises ValueError: if it is too large to be parsed, refers to itself, is nested too deeply, or something beside it
        is no regular file.
    """
    path = require_regular_file(folder / "metadata.yaml")
    size = path.stat().st_size
    if size > LARGEST_METADATA:
        raise ValueError(f"metadata.yaml has {size} bytes, and may have {LARGEST_METADATA}")
    depth = 0
    for event in yaml.parse(path.read_bytes(), Loader=_YamlLoader):
        if isinstance(event, yaml.AliasEvent):  # a few of them can stand for more than any memory holds
            raise ValueError("metadata.yaml has YAML aliases (*NAME), and a recording has none")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST_METADATA:
            raise ValueError(f"metadata.yaml is nested more than {DEEPEST_METADATA} levels deep; a recording has 10")
    for file in folder.iterdir():
        if not file.is_dir():
            require_regular_file(file)


def _open_files(files: list[Path], notes: list[str]) -> list[Any]:
    """Return readers of files; an MCAP file that was cut off is read as far as it goes, and noted."""
    readers: list[Any] = []
    try:
        for file in files:
            readers.append(_open_file(file, notes))
    except BaseException:
        for reader in readers:
            reader.close()
        raise
    return sorted(readers, key=lambda reader: reader.start_time)


def _open_file(file: Path, notes: list[str]) -> Any:
    """Return a reader of a file, rosbags' or, of MCAP that it does not read, ours."""
    require_regular_file(file)
    if file.suffix.lower() == ".zstd":
        raise ValueError(f"{file} is compressed as a whole: give the folder with its metadata.yaml, or run unzstd")
    try:
        return _open_reader(file)
    except Exception as error:
        mcap = SequentialMcap(file) if _suffix(file) == ".mcap" else None
        if mcap is None or not mcap.message_count:
            why = (mcap.damage if mcap else "") or error_text(error)
            raise ValueError(f"{file} cannot be opened: {why}; {_remedy(file)}") from error
        if not has_end(file):
            notes.append(f"{file} was cut off ({error}): it is used up to there")
        return mcap


class _AnyCase(dict[str, Any]):
    """rosbags' table of readers by suffix, for FLIGHT.MCAP, too."""

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(key.lower(), default)


def _open_reader(path: Path) -> Any:
    """Return an open reader of rosbags."""
    from rosbags.rosbag1 import Reader as Reader1
    from rosbags.rosbag2 import Reader as Reader2

    bound_rosbags()
    reader: Any
    if _suffix(path) == ".bag" and not path.is_dir():
        reader = Reader1(path)
    else:
        reader = type("Reader", (Reader2,), {"STORAGE_PLUGINS": _AnyCase(Reader2.STORAGE_PLUGINS)})(path)
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
        files = [file for file in _storage_files(path) if file.suffix.lower() != ".zstd"]
        more = f"; {_remedy(files[-1])}" if files else ""
        return (
            f"`ros2 bag reindex {path}` makes metadata.yaml anew, and without that file the others are read alone{more}"
        )
    suffix, size = _suffix(path), path.stat().st_size
    if not size:
        return "the file is empty: nothing was recorded into it"
    with path.open("rb") as file:
        begin = file.read(len(_BEGINS[suffix]))
    if not _BEGINS[suffix].startswith(begin):
        return f"it does not begin as a {suffix} file does: see how it was copied, and that its name fits"
    if suffix == ".mcap" and has_end(path):
        return "the file is whole, see what is in it with `mcap info`; export its images to a rosbag2"
    return {
        ".bag": f"`rosbag reindex {path}` mends a recording that was cut off",
        ".mcap": f"`mcap recover {path} -o RECOVERED.mcap` mends a recording that was cut off",
    }.get(suffix, f"`sqlite3 {path} .recover | sqlite3 RECOVERED.db3` mends a recording that was cut off")


def error_text(error: Exception) -> str:
    """Return an error of a library as one line, with its kind: its text alone may be a key or nothing."""
    return f"{type(error).__name__}: {error}".replace("\n", " ")
