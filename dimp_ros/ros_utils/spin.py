# SPDX-License-Identifier: Apache-2.0
"""Running a node as a program: spin until a signal, then end in order and within a bounded time."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Protocol

import rclpy
from rclpy.exceptions import InvalidHandle
from rclpy.signals import SignalHandlerOptions

from dimp_ros.ros_utils.callbacks import guard_services
from dimp_ros.ros_utils.executor import FairExecutor
from dimp_ros.ros_utils.fastdds import give_room_for_images
from dimp_ros.ros_utils.output_relay import flush, relayed_output
from dimp_ros.ros_utils.override_checks import check_files, warn_of_overrides
from dimp_ros.ros_utils.program import ending_signals
from dimp_ros.ros_utils.text import shortened

GRACE_SECONDS = 1.5
"""Time for an orderly end; after that the process ends anyway."""

Finish = Callable[[int], None]


class RunnableNode(Protocol):
    """What a node needs besides rclpy's methods to be run here."""

    def close(self) -> bool:
        """Stop the node's own threads and return whether they have ended."""
        ...

    def destroy_node(self) -> None:
        """Take the node off the graph."""


def run(create: Callable[[Finish], RunnableNode], args: Sequence[str] | None = None, threads: int = 5) -> int:
    """Run the node that ``create`` makes until a signal, or until it calls the ``finish`` given to ``create``.

    rclpy's own signal handlers would shut the context down first: here the node publishes its last messages before.
    The main thread only waits, so that a signal is served at once whatever the callbacks do.

    :returns: the process's exit code: 1 after an error, what was passed to ``finish``, also while the node closes
        after a signal, else 0.
    """
    ends: SimpleQueue[int] = SimpleQueue()  # its put() may be called from a signal handler, an Event's set() may not
    previous = {number: signal.signal(number, lambda *_: ends.put(0)) for number in ending_signals()}
    give_room_for_images()
    try:
        with relayed_output(), _bounded_end(set(previous)):
            return _run(create, args, ends, threads)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _run(
    create: Callable[[Finish], RunnableNode], args: Sequence[str] | None, ends: SimpleQueue[int], threads: int
) -> int:
    try:
        try:
            check_files(args)
            rclpy.init(args=list(args) if args is not None else None, signal_handler_options=SignalHandlerOptions.NO)
            node = create(ends.put)
            guard_services(node)
            warn_of_overrides(node, args)
        except Exception as error:  # a wrong parameter or parameter file: one line helps more than a traceback
            print(f"cannot start: {shortened(' '.join(str(error).split()))}", file=sys.stderr)
            return 1
        return _spin(node, ends, threads)
    finally:
        rclpy.try_shutdown()


@contextmanager
def _bounded_end(signals: set[int]) -> Iterator[None]:
    """End the process `GRACE_SECONDS` after one of these signals, also while the main thread waits for a file.

    Python calls handlers in the main thread and between its instructions only; this byte is written at once.
    """
    received, sent = socket.socketpair()
    sent.setblocking(False)
    over = threading.Event()

    def watch() -> None:
        while number := received.recv(1):
            if number[0] in signals and not over.wait(GRACE_SECONDS):
                _leave(0)

    before = signal.set_wakeup_fd(sent.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, name="deadline", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        over.set()
        sent.close()
        thread.join()
        received.close()


def _spin(node: RunnableNode, ends: SimpleQueue[int], threads: int) -> int:
    executor = FairExecutor(threads)
    executor.add_node(node)
    stopping = threading.Event()
    spinner = threading.Thread(target=_spin_safely, args=(executor, stopping, ends), name="spin", daemon=True)
    spinner.start()
    code = _wait(ends)
    deadline = threading.Timer(GRACE_SECONDS, _leave, (code,))
    deadline.daemon = True
    deadline.start()
    idle = node.close()
    while not ends.empty():
        code = code or ends.get()
    stopping.set()
    executor.create_task(lambda: None)  # only something to do ends its waiting
    spinner.join()
    executor.finish_callbacks()
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    deadline.cancel()
    if not idle:  # a thread is deep inside an inference: tearing the interpreter down under it would crash
        _leave(code)
    return code


def _wait(ends: SimpleQueue[int]) -> int:
    """Return the exit code once there is one.

    Of signals in quick succession, Python may note one without waking the main thread: it looks by itself, too.
    """
    while True:
        try:
            return ends.get(timeout=0.2)
        except Empty:
            continue


def _spin_safely(executor: FairExecutor, stopping: threading.Event, ends: SimpleQueue[int]) -> None:
    """Spin; an exception that escapes a callback ends the program with a traceback instead of a silent node."""
    while rclpy.ok() and not stopping.is_set():
        try:
            executor.spin_once()
        except InvalidHandle:  # a subscription was destroyed as its message was taken (rclpy #1142, Humble)
            continue
        except Exception:
            ends.put(1)
            traceback.print_exc()
            return


def _leave(code: int) -> None:
    """End the process without waiting for anything."""
    flush()
    os._exit(code)
