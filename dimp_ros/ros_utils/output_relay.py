# SPDX-License-Identifier: Apache-2.0
"""Standard output and error of a node through a process of its own: whoever does not read them cannot stop the node.

A terminal that is stopped by Ctrl-S, or a pager, lets each write wait, and with it the thread that logs: a controller
that could not publish its zero, a signal that would not be served. Run as a program, this module is that process; it
imports only what starts within milliseconds.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

LIMIT = 2**20
"""Bytes that are kept for a reader that does not read; older ones are left out."""
FLUSH_SECONDS = 1.0
"""How long a reader may take for the rest, once the node has ended."""
WAIT_SECONDS = 0.3
"""How long the node waits for that: as the first process of a container it would take the relay with it."""
LEFT_OUT = b"\n... lines that nobody has read are left out ...\n"
_STREAMS = (1, 2)


@contextmanager
def relayed_output() -> Iterator[None]:
    """Let nothing that writes to standard output or error wait, in any thread and in C. For programs."""
    from dimp_ros.files.program import open_closed_streams  # which the program could not import

    open_closed_streams()
    colored = os.isatty(2)
    saved = [os.dup(stream) for stream in _STREAMS]
    pipes = [os.pipe() for _ in _STREAMS]
    sources = [source for source, _ in pipes]
    try:
        command = [sys.executable, "-I", "-S", __file__, *map(str, sources)]
        relay = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=sources)
    except OSError as error:  # no process or memory is left
        print(f"output that nobody reads may stop this node: {error}", file=sys.stderr)
        for descriptor in (*saved, *(end for pipe in pipes for end in pipe)):
            os.close(descriptor)
        yield
        return
    flush()
    for stream, (source, sink) in zip(_STREAMS, pipes, strict=True):
        os.close(source)
        os.set_blocking(sink, False)  # should the relay hang in its turn, lines are lost
        with suppress(OSError):  # the system allows less
            fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, LIMIT)
        os.dup2(sink, stream)
        os.close(sink)
    if colored:  # rcutils looks for a terminal
        os.environ.setdefault("RCUTILS_COLORIZED_OUTPUT", "1")
    try:
        yield
    finally:
        flush()
        for stream, before in zip(_STREAMS, saved, strict=True):
            os.dup2(before, stream)
            os.close(before)
        with suppress(subprocess.TimeoutExpired):
            relay.wait(WAIT_SECONDS)


def flush() -> None:
    """Write what Python holds of both; raises nothing."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if stream is not None:
                stream.flush()


class _Copy:
    """Copies from a descriptor to another in two threads, so that it always reads.

    :param target: what it does not take is kept up to `LIMIT`, without the oldest lines.
    """

    def __init__(self, source: int, target: int) -> None:
        self._source, self._target = source, target
        self._kept = bytearray()
        self._changed = threading.Condition()
        self._busy = False
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        threading.Thread(target=self._write, daemon=True).start()

    def finish(self, deadline: float) -> None:
        """Wait until all is written, at most until a time of the monotonic clock."""
        with self._changed:
            self._changed.wait_for(lambda: not self._kept and not self._busy, max(0.0, deadline - time.monotonic()))

    def _read(self) -> None:
        while data := os.read(self._source, 2**16):
            with self._changed:
                self._kept += data
                if len(self._kept) > LIMIT:
                    cut = self._kept.find(b"\n", LIMIT // 2) + 1 or LIMIT // 2
                    self._kept[:cut] = LEFT_OUT
                self._changed.notify_all()

    def _write(self) -> None:
        gone = False
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._kept)
                data, self._kept, self._busy = bytes(self._kept), bytearray(), True
            while data and not gone:
                try:
                    data = data[os.write(self._target, data) :]
                except BlockingIOError:  # whoever shares the terminal has made it so
                    time.sleep(0.01)
                except OSError:
                    gone = True


def main(sources: Sequence[str]) -> None:
    """Copy the descriptors given to standard output and error, until they have ended."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)  # it ends with the node, which says last words after a signal
    copies = [_Copy(int(source), stream) for source, stream in zip(sources, _STREAMS, strict=True)]
    for copy in copies:
        copy.reader.join()
    deadline = time.monotonic() + FLUSH_SECONDS
    for copy in copies:
        copy.finish(deadline)
    os._exit(0)  # a thread may still wait for a reader


if __name__ == "__main__":
    main(sys.argv[1:])
