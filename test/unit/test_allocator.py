# SPDX-License-Identifier: Apache-2.0
"""The C allocator keeps a bounded number of arenas, however many threads there are."""

import ctypes
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, re, sys, tempfile, threading
if sys.argv[1] == "limited":
    from dimp_ros.ros_utils.malloc import limit_arenas
    assert limit_arenas()
c = ctypes.CDLL(None)
c.malloc.restype = c.fopen.restype = ctypes.c_void_p
allocated = threading.Barrier(6)

def allocate():
    c.malloc(1000)
    allocated.wait()

threads = [threading.Thread(target=allocate) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
with tempfile.NamedTemporaryFile() as file:
    stream = ctypes.c_void_p(c.fopen(file.name.encode(), b"w"))
    c.malloc_info(0, stream)
    c.fclose(stream)
    print(len(re.findall("<heap nr=", open(file.name).read())))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
@pytest.mark.parametrize(("how", "fits"), [("limited", lambda n: n <= 2), ("free", lambda n: n > 2)])
def test_threads_share_two_arenas_once_that_is_asked_for(how, fits):
    answer = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    assert fits(int(answer.stdout)), answer.stdout


def test_other_c_library_is_accepted(monkeypatch):
    from dimp_ros.ros_utils import malloc as allocator

    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert allocator.limit_arenas() is False
