# SPDX-License-Identifier: Apache-2.0
"""The process in which files of ``torch.save`` are read, see `dimp_ros.model.checkpoints.torch_file`.

A pickle is a program: it may name any function, and small ones can ask for unlimited time and memory. Here the standard
library's unpickler reads it, every global outside `ALLOWED` is replaced by the inert `Opaque`, and the kernel limits
CPU time, memory, writing and new processes. The script imports the standard library only and is run with ``-I -S``.

Input: the file as standard input. Output: length of a JSON header (8 bytes, little-endian), the header (``tensors``:
``[name, storage, offset, size, stride]``, ``storages``: ``[type, bytes]``, ``entries``, ``info``), then the bytes of
each storage. For a file that is refused: exit code 2, and the reason as standard error.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import struct
import sys
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

MEMORY_MIB = 256
"""Besides twice the file's size."""
MAX_HEADER_BYTES = 2**20
MAX_ERROR_CHARACTERS = 400

LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
ITEM_BYTES = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
}


class Opaque:
    """Stands for every global that is not allowed, and for objects made with it: takes anything, does nothing."""

    __slots__ = ()

    def __new__(cls, *_: Any, **__: Any) -> Opaque:
        """Drop the arguments."""
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        """Drop an object's state."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Drop an item."""

    def append(self, item: Any) -> None:
        """Drop an item."""

    extend = add = append


class StateDict(dict[Any, Any]):
    """An ordered dict; its attributes (``_metadata``) are dropped."""

    __slots__ = ()
    __setstate__ = Opaque.__setstate__


class Storage(NamedTuple):
    """The numbers that tensors are views of: type, key in the file, how many."""

    kind: str
    key: str
    length: int


class StoredTensor(NamedTuple):
    """A view of a storage; offset and stride in numbers."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> StoredTensor:
    size, stride = tuple(size), tuple(stride)
    if not isinstance(storage, Storage) or any(type(number) is not int for number in (offset, *size, *stride)):
        raise ValueError("a tensor's storage, offset, size or stride is invalid")
    return StoredTensor(storage, offset, size, stride)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


def _rebuild_subclass(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    return function(*arguments)


ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): StateDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_subclass,
    **{(module, name): name for module in ("torch", "torch.cuda", "torch.storage") for name in ITEM_BYTES},
}
"""The globals that a pickle may use, by module and name."""


class Unpickler(pickle.Unpickler):
    """The standard library's unpickler without any global but those of `ALLOWED`."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what a global stands for; nothing is imported."""
        return ALLOWED.get((module, name), Opaque)

    def persistent_load(self, pid: Any) -> Any:
        """Return the storage, or the class that old files name with its source, that a persistent id stands for."""
        if isinstance(pid, tuple) and pid[:1] == ("module",):
            return Opaque
        kind, key, _, length, *view = pid[1:]
        if kind not in ITEM_BYTES or type(key) is not str or type(length) is not int or length < 0 or any(view):
            raise ValueError("a storage's type, key or length is invalid")
        storage = Storage(kind, key, length)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key[:40]!a} is described twice, and differently")
        return storage


Read = Callable[[Storage], bytes]


def read_zip(file: BinaryIO) -> tuple[Any, Read]:
    """Read the layout of PyTorch 1.6 and later: ``NAME/data.pkl`` is the object, ``NAME/data/KEY`` a storage.

    :return: the object, and the function that reads a storage.
    """
    archive = zipfile.ZipFile(file)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        raise ValueError("it has compressed entries, which PyTorch never writes")
    objects = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(objects) != 1:
        raise ValueError("it has no data.pkl: a zip archive of something else")
    prefix = objects[0].removesuffix("data.pkl")
    if prefix + "byteorder" in archive.namelist() and archive.read(prefix + "byteorder") != b"little":
        raise ValueError("it was written on a big-endian machine; load and save it on another one")
    content = Unpickler(io.BytesIO(archive.read(objects[0]))).load()
    return content, lambda storage: archive.read(f"{prefix}data/{storage.key}")


def read_legacy(file: BinaryIO) -> tuple[Any, Read]:
    """Read the layout before PyTorch 1.6: pickles of magic number, protocol, machine, object and keys, then storages.

    :return: the object, and the function that reads a storage.
    """
    if file.read(1) != b"\x80" or file.seek(0) or Unpickler(file).load() != LEGACY_MAGIC:
        raise ValueError("it is neither a zip archive nor begins with PyTorch's magic number")
    if Unpickler(file).load() != LEGACY_PROTOCOL:
        raise ValueError("its protocol is unknown")
    if Unpickler(file).load()["little_endian"] is not True:
        raise ValueError("it was written on a big-endian machine; load and save it on another one")
    unpickler = Unpickler(file)
    content, begins = unpickler.load(), {}
    for key in Unpickler(file).load():
        storage = unpickler.storages[key]
        if struct.unpack("<q", file.read(8)) != (storage.length,):
            raise ValueError(f"storage {key[:40]!a} has another length than its tensors say")
        begins[key] = file.tell()
        file.seek(storage.length * ITEM_BYTES[storage.kind], io.SEEK_CUR)

    def read(storage: Storage) -> bytes:
        file.seek(begins[storage.key])
        return file.read(storage.length * ITEM_BYTES[storage.kind])

    return content, read


def find_tensors(content: Any) -> tuple[dict[str, StoredTensor], list[str], str]:
    """Find the network's tensors: the dict under ``net``, or the object itself.

    :return: the tensors, the names of the other entries, and the entry ``dimp_ros`` as JSON.
    """
    if not isinstance(content, dict):
        raise ValueError(f"it holds {_kind(content)}, not a dict with an entry 'net', nor a dict of tensors")
    state = content.get("net", content)
    if not isinstance(state, dict):
        raise ValueError(f"its entry 'net' is {_kind(state)}, not a dict of tensors")
    if {"average", "optimizer", "model"} <= content.keys():
        raise ValueError("it is the checkpoint of a training run; take weights.safetensors from the same folder")
    wrong = [k for k, v in state.items() if not isinstance(v, StoredTensor) or type(k) is not str]
    if wrong or not state:
        raise ValueError(f"its tensors are none: {', '.join(map(_name, wrong[:8])) or 'it is empty'}")
    others = [_name(key) for key in content if key not in ("net", "dimp_ros")] if state is not content else []
    info = content.get("dimp_ros", "") if state is not content else ""
    return state, others, json.dumps(info) if info else ""


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}" if type(value).__module__ == "builtins" else "an object"


def _name(key: Any) -> str:
    return ascii(key[:80])[1:-1] if type(key) is str else _kind(key)


def write(
    file: BinaryIO, tensors: dict[str, StoredTensor], read: Read, entries: list[str], info: str, size: int
) -> None:
    """Write header and storages; entries of a zip archive may overlap, and hold more than its ``size`` together."""
    storages = list(dict.fromkeys(tensor.storage for tensor in tensors.values()))
    if (total := sum(s.length * ITEM_BYTES[s.kind] for s in storages)) > size:
        raise ValueError(f"its storages have {total} bytes together, and the file has {size}; it is damaged")
    number = {storage: n for n, storage in enumerate(storages)}
    header = {
        "tensors": [[name, number[t.storage], t.offset, t.size, t.stride] for name, t in tensors.items()],
        "storages": [[s.kind, s.length * ITEM_BYTES[s.kind]] for s in storages],
        "entries": entries,
        "info": info,
    }
    text = json.dumps(header).encode()
    if len(text) > MAX_HEADER_BYTES:
        raise ValueError(f"it describes its tensors in {len(text)} bytes; at most {MAX_HEADER_BYTES} are read")
    file.write(struct.pack("<Q", len(text)) + text)
    for storage in storages:
        data = read(storage)
        if len(data) != storage.length * ITEM_BYTES[storage.kind]:
            raise ValueError(f"storage {storage.key[:40]!a} has {len(data)} bytes, not {storage.length} numbers")
        file.write(data)


def limit(size: int, cpu_seconds: int) -> None:
    """Limit this process to what reading a file of ``size`` bytes needs; the kernel enforces it."""
    limits = {
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_AS: MEMORY_MIB * 2**20 + 2 * size,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_CORE: 0,
    }
    for what, value in limits.items():
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def main(cpu_seconds: int) -> int:
    """Read standard input within ``cpu_seconds`` of CPU time; return the exit code."""
    file = open(0, "rb", closefd=False)
    size = os.fstat(file.fileno()).st_size
    limit(size, cpu_seconds)
    try:
        start = file.read(4)
        file.seek(0)
        content, read = (read_zip if start == b"PK\x03\x04" else read_legacy)(file)
        tensors, entries, info = find_tensors(content)
        write(sys.stdout.buffer, tensors, read, entries, info, size)
        sys.stdout.buffer.flush()
        return 0
    except ValueError as error:
        reason = str(error)
    except MemoryError:
        reason = f"it needs more than {MEMORY_MIB} MiB and twice its size in memory; it is damaged"
    except Exception as error:  # whatever the unpickler makes of damage
        reason = f"it is damaged ({type(error).__name__}: {error})"
    sys.stderr.write(" ".join(reason[:MAX_ERROR_CHARACTERS].split()))
    sys.stderr.flush()
    return 2


if __name__ == "__main__":
    os._exit(main(int(sys.argv[1])))  # nothing that the file made is taken apart
