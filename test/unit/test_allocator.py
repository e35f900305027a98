# SPDX-License-Identifier: Apache-2.0
"""The C allocator keeps few arenas, and gives large arrays back whatever was freed before."""

import ctypes
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, re, sys, tempfile, threading
if sys.argv[1] == "limited":
    from dimp_ros.ros_utils.malloc import bound_allocator
    assert bound_allocator()
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


LARGE_ARRAYS = """
import ctypes, sys
if sys.argv[1] == "limited":
    from dimp_ros.ros_utils.malloc import bound_allocator
    assert bound_allocator()
c = ctypes.CDLL(None)
c.malloc.restype, c.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
c.free(c.malloc(2**24))  # from now on, glibc by itself takes smaller ones from an arena

def heap():
    line = next(line for line in open("/proc/self/maps") if line.rstrip().endswith("[heap]"))
    begin, end = line.split()[0].split("-")
    return int(end, 16) - int(begin, 16)

before = heap()
arrays = [c.malloc(2**19) for _ in range(40)]
print(heap() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the threshold is glibc's")
@pytest.mark.parametrize(("how", "fits"), [("limited", lambda n: n < 2**20), ("free", lambda n: n > 2**24)])
def test_large_arrays_have_pages_of_their_own_after_larger_were_freed(how, fits):
    answer = subprocess.run([sys.executable, "-c", LARGE_ARRAYS, how], capture_output=True, text=True, check=True)
    assert fits(int(answer.stdout)), answer.stdout


def test_other_c_library_is_accepted(monkeypatch):
    from dimp_ros.ros_utils import malloc as allocator

    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert allocator.bound_allocator() is False
