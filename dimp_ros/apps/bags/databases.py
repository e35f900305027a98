# SPDX-License-Identifier: Apache-2.0
"""Databases of bags, with stored data only: a view or a computed column may take for ever, in which no signal acts."""

from __future__ import annotations

from typing import Any

MOST_TOPICS = 5000
"""Topics of a database; each costs time before the first image."""
MOST_ENTRIES = 1000
"""Tables and indices of a database; a recording has five tables."""
LARGEST_VALUE = 2**28
"""Bytes of a message or text."""
_STEPS = 100_000


class PlainDatabases:
    """The module apsw, whose connections refuse what a database computes, and can be interrupted."""

    def __getattr__(self, name: str) -> Any:
        import apsw

        return getattr(apsw, name)

    @staticmethod
    def Connection(name: str, **options: Any) -> Any:
        """Return a connection.

        :raises ValueError: for a database with views, virtual tables, triggers or computed columns.
        """
        import apsw

        connection = apsw.Connection(name, **options)
        connection.set_progress_handler(lambda: False, _STEPS)  # meanwhile, Python handles signals
        connection.limit(apsw.SQLITE_LIMIT_LENGTH, LARGEST_VALUE)
        _check_plain(connection)
        return connection


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
