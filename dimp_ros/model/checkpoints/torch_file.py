# SPDX-License-Identifier: Apache-2.0
"""Reading the tensors of a file of ``torch.save`` without running the pickle in it.

`torch_file_reader` reads the file in a process of its own, with limits on time and memory, and hands over a JSON header
and numbers. Whatever a file does there, it ends with that process.
"""

from __future__ import annotations

import json
import math
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dimp_ros.files.inputs import require_regular_file

READER = Path(__file__).with_name("torch_file_reader.py")
CPU_SECONDS, CPU_SECONDS_OF_GIB = 3, 4
"""For any file, and besides for each GiB of it."""
WALL_SECONDS = 60.0
"""For a file on a slow disk, or a busy machine."""
MAX_FILE_BYTES = 2**32
MAX_NUMBERS = 2**40
"""In a tensor; one that repeats the numbers of a small storage may have more than the file."""

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class TorchFile(NamedTuple):
    """What is read of a file.

    :param tensors: of the entry ``net``, or of the whole file, by name. They share numbers where they did, and may
        repeat them: look at a shape before copying.
    :param entries: names of the other entries. :param info: the entry ``dimp_ros`` as JSON; empty without one.
    """

    tensors: dict[str, Tensor]
    entries: list[str]
    info: str


def read_torch_file(path: str | Path) -> TorchFile:
    """Return the tensors that ``torch.save`` wrote to a file, as plain tensors on the CPU.

    :raises OSError: if the file cannot be opened. :raises ValueError: if it is damaged, no regular file, or takes more
        than `CPU_SECONDS` and `CPU_SECONDS_OF_GIB`, `WALL_SECONDS` or twice its size and 256 MiB of memory.
    """
    with require_regular_file(Path(path)).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE_BYTES:
            raise ValueError(f"{str(path)!r} has {size} bytes; a checkpoint has at most {MAX_FILE_BYTES}")
        seconds = CPU_SECONDS + CPU_SECONDS_OF_GIB * size // 2**30
        command = [sys.executable, "-I", "-S", str(READER), str(seconds)]
        try:
            done = subprocess.run(command, stdin=file, capture_output=True, timeout=WALL_SECONDS, check=False)
            if done.returncode:
                raise ValueError(_reason(done, seconds))
            return _parse(bytearray(done.stdout))
        except (ValueError, subprocess.TimeoutExpired) as error:
            raise ValueError(f"{str(path)!r} cannot be read as a PyTorch file: {error}") from error


def _reason(done: subprocess.CompletedProcess[bytes], seconds: int) -> str:
    """Say why the reader refused the file or was ended."""
    if done.returncode == -signal.SIGXCPU:
        return f"it takes more than {seconds} s of CPU time; it is damaged"
    if done.returncode == 2 and done.stderr:
        return " ".join(done.stderr.decode(errors="replace").split())  # Python itself may have written there, too
    return f"its reader ended with code {done.returncode}; it is damaged"


def _parse(data: bytearray) -> TorchFile:
    """Build the tensors from the reader's output.

    :raises ValueError: for a tensor that is not inside its storage.
    """
    (length,) = struct.unpack_from("<Q", data)
    header, begin = json.loads(data[8 : 8 + length]), 8 + length
    storages = []
    for kind, count in header["storages"]:
        storages.append(_numbers(data[begin : begin + count], DTYPES[kind]))
        begin += count
    tensors = {name: _view(storages[number], *where) for name, number, *where in header["tensors"]}
    return TorchFile(tensors, header["entries"], header["info"])


def _numbers(data: bytearray, dtype: torch.dtype) -> Tensor:
    """Return bytes as a flat tensor that owns them."""
    if not data:
        return torch.empty(0, dtype=dtype)
    if dtype == torch.bool:  # a byte other than 0 and 1 is no valid bool
        return torch.frombuffer(data, dtype=torch.uint8) != 0
    return torch.frombuffer(data, dtype=dtype)


def _view(flat: Tensor, offset: int, size: list[int], stride: list[int]) -> Tensor:
    """Return a view of a storage; torch checks that it is inside."""
    if math.prod(max(extent, 1) for extent in size) > MAX_NUMBERS:
        raise ValueError(f"a tensor's size {size} is beyond {MAX_NUMBERS} numbers")
    try:
        return flat.as_strided(size, stride, offset)
    except (RuntimeError, OverflowError, TypeError) as error:
        raise ValueError(f"size {size}, stride {stride} and offset {offset} of a tensor: {error}") from error
