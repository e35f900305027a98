# SPDX-License-Identifier: Apache-2.0
"""Databases of bags, with stored data only: a view or a computed column may take for ever, in which no signal acts.

A recorder in SQLite's mode WAL, such as rosbag2's preset "resilient", writes into a log beside the database first. It
is there while it records, and after it was killed. SQLite would write beside the recording to read it: a copy is read.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dimp_ros.files.inputs import require_regular_file

MOST_TOPICS = 5000
"""Topics of a database; each costs time before the first image."""
MOST_ENTRIES = 1000
"""Tables and indices of a database; a recording has five tables."""
LARGEST_VALUE = 2**28
"""Bytes of a message or text."""
COPY_ATTEMPTS = 5
_STEPS = 100_000
_LOG_BEGINS = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_LOG_HEADER = 32
_JOURNAL_BEGINS = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
"""SQLite writes zeros over it, empties the file or removes it when all is written."""


class PlainDatabases:
    """The module apsw, whose connections refuse what a database computes, and can be interrupted."""

    def __getattr__(self, name: str) -> Any:
        import apsw

        return getattr(apsw, name)

    @staticmethod
    def Connection(name: str, **options: Any) -> Any:
        """Return a connection to the database with its write-ahead log.

        :param name: as rosbags gives it: the path between ``file:`` and ``?``, not quoted.
        :raises ValueError: for a database with views, virtual tables, triggers or computed columns, for one that a
            recorder was writing when it ended, and for one with a log that cannot be applied; with the remedy.
        """
        path = Path(name.removeprefix("file:").rpartition("?")[0])
        _check_whole(path)
        if not _has_log(path):
            return _open(path, options)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, "copy.db3")
            _copy(path, copy)
            _apply_log(path, copy)
            return _open(copy, options)  # which lasts until it is closed, without its name


def _open(path: Path, options: dict[str, Any]) -> Any:
    import apsw

    connection = apsw.Connection(f"file:{quote(str(path))}?immutable=1", **options)
    try:
        connection.set_progress_handler(lambda: False, _STEPS)  # meanwhile, Python handles signals
        connection.limit(apsw.SQLITE_LIMIT_LENGTH, LARGEST_VALUE)
        _check_plain(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_whole(path: Path) -> None:
    """Raise ValueError for a database that is half written: a rollback journal holds the pages as they were before."""
    journal = path.with_name(path.name + "-journal")
    if not journal.exists():
        return
    with require_regular_file(journal).open("rb") as file:
        if file.read(len(_JOURNAL_BEGINS)) == _JOURNAL_BEGINS:
            raise ValueError(
                f"a recorder is writing it or was killed while it did, see {journal.name}: end the recorder, and let "
                f"SQLite take the half-written part back: `sqlite3 {path} .tables`"
            )


def _log(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _has_log(path: Path) -> bool:
    return bool(_log_header(path))


def _log_header(path: Path) -> bytes:
    """Return the header of a database's log, which is another one after each checkpoint; empty if nothing is in it."""
    log = _log(path)
    if not log.exists():
        return b""
    with require_regular_file(log).open("rb") as file:
        header = file.read(_LOG_HEADER)
        return header if header.startswith(_LOG_BEGINS) and file.read(1) else b""


def _copy(path: Path, copy: Path) -> None:
    """Copy a database and its log, also while they are written.

    :raises ValueError: if they are too large, or are written too fast.
    """
    size, free = path.stat().st_size + _log(path).stat().st_size, shutil.disk_usage(copy.parent).free // 2
    if size > free:
        raise ValueError(
            f"its write-ahead log {_log(path).name} is applied in a copy, and its {size} bytes are more than half of "
            f"what is free in {copy.parent.parent}: set TMPDIR to a larger disk, or apply it in the file itself with "
            f'`sqlite3 {path} "PRAGMA wal_checkpoint(TRUNCATE)"`'
        )
    for _ in range(COPY_ATTEMPTS):
        before = _log_header(path), path.stat().st_size, path.stat().st_mtime_ns
        shutil.copyfile(path, copy)
        if _log(path).exists():
            shutil.copyfile(_log(path), _log(copy))
        else:
            _log(copy).unlink(missing_ok=True)
        if before == (_log_header(path), path.stat().st_size, path.stat().st_mtime_ns):
            return
    raise ValueError("it changes while it is copied; read it when the recording has ended")


def _apply_log(path: Path, copy: Path) -> None:
    """Write the log of a copy into it.

    :raises ValueError: if SQLite cannot use all of it: it passes over what is behind a damaged page, without a word.
    """
    import apsw

    committed = _committed_pages(_log(copy)) if _log(copy).exists() else 0
    with closing(apsw.Connection(str(copy))) as database:
        database.set_progress_handler(lambda: False, _STEPS)
        database.execute("SELECT count(*) FROM sqlite_master").fetchall()
        ((_, _, written),) = database.execute("PRAGMA wal_checkpoint(PASSIVE)")
    if written < committed:
        raise ValueError(
            f"its write-ahead log {_log(path).name} is damaged after {max(written, 0)} of {committed} pages; "
            f'`sqlite3 {path} "PRAGMA wal_checkpoint(TRUNCATE)"` applies those and drops the others'
        )


def _committed_pages(log: Path) -> int:
    """Return how many pages of a log its writer had committed; the last page may not be whole, and does not count."""
    with log.open("rb") as file:
        header = file.read(_LOG_HEADER)
        step = 24 + int.from_bytes(header[8:12], "big")
        if step < 512:  # no log of SQLite
            return 1
        last = committed = 0
        for number in range(1, (log.stat().st_size - _LOG_HEADER) // step + 1):
            file.seek(_LOG_HEADER + (number - 1) * step)
            page = file.read(16)
            if page[8:16] == header[16:24]:  # others were there before the last checkpoint
                committed, last = last, number if any(page[4:8]) else last
        return committed


def _check_plain(connection: Any) -> None:
    for count, (kind, name, sql) in enumerate(connection.execute("SELECT type, name, sql FROM sqlite_master")):
        if kind not in ("table", "index") or "virtual" in str(sql).lower().split()[:2] or count >= MOST_ENTRIES:
            raise ValueError(f"its database has a {kind} {name!r:.60} that a recording does not have")
        if kind == "table":
            quoted = str(name).replace('"', '""')
            if any(column[6] for column in connection.execute(f'PRAGMA table_xinfo("{quoted}")')):
                raise ValueError(f"its table {name!r:.60} has computed columns, and a recording has none")
            if name == "topics":
                ((topics,),) = connection.execute("SELECT count(*) FROM topics")
                if topics > MOST_TOPICS:
                    raise ValueError(f"it has {topics} topics; a bag of at most {MOST_TOPICS} is opened")
