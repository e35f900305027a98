# SPDX-License-Identifier: Apache-2.0
"""Detecting and opening bags, also without metadata.yaml and if the recording was cut off."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any, NamedTuple

import yaml

from dimp_ros.apps.bags.decompression import bound_rosbags
from dimp_ros.apps.bags.mcap import MAGIC, SequentialMcap, has_end, index_is_whole
from dimp_ros.files.inputs import require_regular_file
from dimp_ros.files.yaml_file import compose_yaml

STORAGE_SUFFIXES = (".mcap", ".db3")
LARGEST_METADATA = 2**20
"""Largest metadata.yaml, bytes; recorders write a few kilobytes."""
MAX_FILES = 500
"""Files of one bag; each takes a descriptor and 200 KiB while the bag is open."""
LISTED_FILES = 5
_BEGINS = {".mcap": MAGIC, ".db3": b"SQLite format 3\0", ".bag": b"#ROSBAG V"}


def is_bag(path: str) -> bool:
    """Return whether ``path`` is a bag: a folder of rosbag2, one of its files, or a .bag of ROS 1."""
    place = Path(path)
    if place.is_dir():
        return (place / "metadata.yaml").is_file() or bool(_storage_files(place))
    return _suffix(place) in (*STORAGE_SUFFIXES, ".bag")


def _suffix(path: Path) -> str:
    """Return the suffix of a file's name in lower case, without .zstd of a compressed file."""
    return Path(path.name.lower().removesuffix(".zstd")).suffix


def _storage_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _suffix(path) in STORAGE_SUFFIXES and path.name[0] != ".")


def recording_of(path: Path) -> list[Path]:
    """Return what belongs to a bag besides ``path``: of a single file its metadata.yaml, a database's journals, and the
    recordings beside it, which may be the other parts of it.
    """
    if path.is_dir():
        return []
    journals = [path.with_name(path.name + ending) for ending in ("-wal", "-shm", "-journal")]
    others = [other for other in _storage_files(path.parent) if other != path] if path.parent.is_dir() else []
    return [path.with_name("metadata.yaml"), *journals, *others]


class Metadata(NamedTuple):
    """What is read from metadata.yaml here: the names of the files, and the number of messages by topic."""

    files: list[str]
    counts: dict[str, int]


def open_readers(path: Path) -> tuple[list[Any], list[str], dict[str, int]]:
    """Return open readers of a bag in order of time, remarks about the state of its files, and how many messages each
    topic should have, where the files are read one by one and metadata.yaml tells.

    :raises ValueError: if the bag cannot be opened, with the remedy.
    """
    if not path.exists():
        raise ValueError(f"no such file or folder: {path}")
    notes: list[str] = []
    metadata = Metadata([], {})
    if path.is_dir() and (path / "metadata.yaml").is_file():
        try:
            metadata = _read_metadata(path)
            _check_folder(path, metadata)
            reader = _open_reader(path)
        except Exception as error:
            notes.append(f"{path} cannot be opened: {error_text(error)}; {_remedy(path)}")
        else:
            return [reader], _unnamed(path, metadata), {}
    elif not path.is_dir():
        return _open_files([path], notes), notes, {}
    files = _storage_files(path)  # the recorder was killed before it wrote metadata.yaml or finished the last file
    if not files:
        raise ValueError(notes[0])
    if notes:
        gone = [shown(name) for name in metadata.files if not (path / PurePath(name).name).exists()]
        names = f"; it names {', '.join(gone[:LISTED_FILES])}, not there" if gone else ""
        notes = [f"{path / 'metadata.yaml'} cannot be used: the files are read one by one{names}"]
    return _open_files(files, notes), notes, metadata.counts


def _unnamed(folder: Path, metadata: Metadata) -> list[str]:
    """Return a remark about files of a bag that are not part of it."""
    named = {PurePath(name).name for name in metadata.files}
    others = [shown(file.name) for file in _storage_files(folder) if file.name not in named]
    if not others:
        return []
    return [
        f"{folder / 'metadata.yaml'} does not name {', '.join(others[:LISTED_FILES])}, which is not read; give the "
        "file itself, or make a new metadata.yaml: `ros2 bag reindex`"
    ]


def _read_metadata(folder: Path) -> Metadata:
    """Return what metadata.yaml tells.

    :raises ValueError: if it is too large, has aliases, is nested too deeply, or is no regular file.
    """
    path = require_regular_file(folder / "metadata.yaml")
    try:
        root = compose_yaml(path, LARGEST_METADATA)
    except ValueError as error:
        raise ValueError(f"metadata.yaml: {error}") from error
    files = [item.value for item in _values(root, "relative_file_paths") if isinstance(item.value, str)]
    counts: dict[str, int] = {}
    for topic in _values(root, "topics_with_message_count"):
        names, numbers = _scalars(topic, "name"), _scalars(topic, "message_count")
        if len(names) == len(numbers) == 1 and numbers[0].isdecimal() and len(numbers[0]) < 20:
            counts[names[0]] = counts.get(names[0], 0) + int(numbers[0])
    return Metadata(files, counts)


def _values(node: yaml.Node | None, name: str) -> list[yaml.Node]:
    """Return the items of the sequences called ``name``."""
    found: list[yaml.Node] = []
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        is_wanted = key.value == name and isinstance(value, yaml.SequenceNode)
        found += value.value if is_wanted else _values(value, name)
    return found


def _scalars(node: yaml.Node, name: str) -> list[str]:
    """Return the scalars called ``name``."""
    found: list[str] = []
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        found += [value.value] if key.value == name and isinstance(value, yaml.ScalarNode) else _scalars(value, name)
    return found


def _check_folder(folder: Path, metadata: Metadata) -> None:
    """Check the files before the bag is opened.

    :raises ValueError: if metadata.yaml names a file twice or too many, or a file is not regular.
    """
    try:
        _check_count(len(metadata.files))
        present = [(folder / name).stat() for name in metadata.files if (folder / name).exists()]
        if len({(status.st_dev, status.st_ino) for status in present}) < len(present):
            raise ValueError("it names a file more than once")
    except ValueError as error:
        raise ValueError(f"metadata.yaml: {error}") from error
    for file in folder.iterdir():
        if not file.is_dir():
            require_regular_file(file)


def _check_count(count: int) -> None:
    if count > MAX_FILES:
        raise ValueError(f"{count} files; a bag of at most {MAX_FILES} is opened, move some into another folder")


def _open_files(files: list[Path], notes: list[str]) -> list[Any]:
    """Return readers of files; an MCAP file that was cut off is read up to there, with a note."""
    _check_count(len(files))
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
    """Return rosbags' reader of a file, or `SequentialMcap` for MCAP files that rosbags cannot read."""
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
            notes.append(f"{file} was cut off ({shown(str(error))}): it is used up to there")
        return mcap


class _AnyCase(dict[str, Any]):
    """rosbags' table of readers by suffix, ignoring case."""

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
    """Check the types of a reader's fields: a damaged database may hold numbers for strings and the reverse.

    :raises ValueError: with the wrong value; for an MCAP file whose index lacks messages, which rosbags would not read.
    """
    for connection in reader.connections:
        if not isinstance(connection.topic, str) or not isinstance(connection.msgtype, str):
            kinds = f"{type(connection.topic).__name__} and {type(connection.msgtype).__name__}"
            raise ValueError(f"it is damaged: name and type of a topic are {kinds}, not text")
    if not isinstance(reader.start_time, int) or not isinstance(reader.end_time, int):
        kinds = f"{type(reader.start_time).__name__} and {type(reader.end_time).__name__}"
        raise ValueError(f"it is damaged: its first and last time are {kinds}, not integers")
    storage = getattr(reader, "storage", None)  # a file, or a folder of files
    for one in getattr(storage, "storages", [storage]):
        chunks = getattr(one, "chunks", None)
        if chunks and not index_is_whole(one.path, one.data_start, one.data_end, chunks):
            raise ValueError(f"the index of {one.path.name} lacks some of its messages")


def _remedy(path: Path) -> str:
    """Return the remedy for a bag that cannot be opened."""
    if path.is_dir():
        files = [file for file in _storage_files(path) if file.suffix.lower() != ".zstd"]
        more = f"; {_remedy(files[-1])}" if files else ""
        return f"`ros2 bag reindex {path}` writes a new metadata.yaml; without that file the others are read{more}"
    suffix, size = _suffix(path), path.stat().st_size
    if not size:
        return "the file is empty: nothing was recorded into it"
    with path.open("rb") as file:
        begin = file.read(len(_BEGINS[suffix]))
    if not _BEGINS[suffix].startswith(begin):
        return f"it does not begin as a {suffix} file does: check how it was copied, and its suffix"
    if suffix == ".mcap" and has_end(path):
        return "the file is complete; inspect it with `mcap info`, and export its images to a rosbag2"
    return {
        ".bag": f"`rosbag reindex {path}` repairs a recording that was cut off",
        ".mcap": f"`mcap recover {path} -o RECOVERED.mcap` repairs a recording that was cut off",
    }.get(suffix, f"`sqlite3 {path} .recover | sqlite3 RECOVERED.db3` repairs a recording that was cut off")


def error_text(error: Exception) -> str:
    """Return a library's error as one line with its type, since its text alone may be empty or just a key."""
    return f"{type(error).__name__}: {shown(str(error).replace(chr(10), ' '), 500)}"


def shown(text: str, limit: int = 256) -> str:
    """Return a text from a file for a terminal: at most ``limit`` of its characters, control characters escaped."""
    kept = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:limit])
    return kept + "..." * (len(text) > limit)
