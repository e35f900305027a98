# SPDX-License-Identifier: Apache-2.0
"""Input files: what is no file of data is refused before it is opened."""

import os
from pathlib import Path

import pytest

from dimp_ros.files.inputs import opencv_path, read_small_file, require_regular_file

KERNEL = [path for path in ("/proc/self/status", "/proc/kmsg", "/sys/kernel/uevent_seqnum") if os.path.exists(path)]


@pytest.mark.parametrize("name", KERNEL)
@pytest.mark.parametrize("linked", [False, True], ids=["itself", "link"])
def test_files_of_the_kernel_are_refused(tmp_path, name, linked):
    path = Path(name)
    if linked:
        (path := tmp_path / "film.mp4").symlink_to(name)
    for read in (require_regular_file, opencv_path):
        with pytest.raises(ValueError, match="file of the kernel"):
            read(path)
    with pytest.raises((ValueError, PermissionError)):
        read_small_file(path, 2**20)


def test_an_open_file_by_its_number_is_taken(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"abc")
    with path.open("rb") as file:
        number = f"/proc/self/fd/{file.fileno()}"
        assert read_small_file(number, 10) == b"abc"
        assert require_regular_file(Path(number)) == Path(number)
