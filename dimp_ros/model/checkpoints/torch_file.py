# SPDX-License-Identifier: Apache-2.0
"""Reading what ``torch.save`` wrote, without running the pickle in it.

Two layouts exist. Since PyTorch 1.6 a file is a zip archive: ``NAME/data.pkl`` is the object, ``NAME/data/KEY`` the
numbers of each storage. Before, it was a row of pickles (a magic number, a protocol number, facts about the machine,
the object, the keys of its storages), then each storage as a 64-bit count and its numbers.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dimp_ros.model.checkpoints.unpickle import Foreign, Known, unpickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
MOST_NUMBERS = 2**40
"""Numbers in a tensor, and in a step of its stride, beyond which a file is taken for damaged."""


@dataclass(frozen=True)
class StorageType:
    """The kind of a storage: what its numbers are."""

    dtype: torch.dtype


class Storage:
    """The numbers of one storage, as a flat tensor."""

    def __init__(self, flat: Tensor) -> None:
        self.flat = flat


STORAGE_TYPES = {
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
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}


def read_torch_file(path: str | Path) -> Any:
    """Return the object that ``torch.save`` wrote to a file; nothing in the file is executed.

    Tensors and parameters come as plain tensors on the CPU, without gradients; tensors that shared numbers share them
    again. Numbers, texts and plain containers come as they are; everything else as `Foreign`. A tensor is a view of
    what the file holds and may be an expanded one: look at its shape before copying it.

    :raises OSError: if the file cannot be opened. :raises ValueError: if it is damaged or not such a file.
    """
    data = Path(path).read_bytes()
    try:
        return _read_zip(data) if data[:4] == b"PK\x03\x04" else _read_legacy(data)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} cannot be read as a PyTorch file: {error}") from error


# What stands for a global of torch's


def _integers(values: Any) -> tuple[int, ...]:
    """Return sizes or strides, checked."""
    if not isinstance(values, (tuple, list)) or not all(type(value) is int and value >= 0 for value in values):
        raise ValueError("a tensor's size or stride is no row of whole numbers")
    return tuple(values)


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """Return the view of a storage that a tensor was; flags and hooks are dropped."""
    if not isinstance(storage, Storage):
        raise ValueError("a tensor's storage is none")
    size, stride, (offset,) = _integers(size), _integers(stride), _integers((offset,))
    if len(size) != len(stride) or len(size) > 64:
        raise ValueError(f"a tensor has {len(size)} sizes and {len(stride)} strides")
    if math.prod(max(extent, 1) for extent in size) > MOST_NUMBERS or max(stride, default=0) > MOST_NUMBERS:
        raise ValueError(f"a tensor's size {size} or stride {stride} is out of all proportion")
    last = offset + sum((extent - 1) * step for extent, step in zip(size, stride, strict=True))
    if 0 not in size and last >= len(storage.flat):
        raise ValueError(f"a tensor reaches to number {last} of a storage of {len(storage.flat)}")
    if 0 in size:
        return storage.flat.new_empty(size)
    return storage.flat.as_strided(size, stride, offset)


def _rebuild_tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Tensor:
    """Return the view of an untyped storage as numbers of ``dtype``."""
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        raise ValueError("a tensor's storage or type is none")
    if len(storage.flat) * storage.flat.itemsize % dtype.itemsize:
        raise ValueError(f"a storage of {len(storage.flat)} bytes holds no whole number of {dtype}")
    return _rebuild_tensor(Storage(storage.flat.view(dtype)), offset, size, stride)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    """Return a parameter's tensor."""
    return data


def _rebuild_from_type(function: Any, _: Any, args: Any, *__: Any) -> Any:
    """Return the plain tensor that an object of a subclass of Tensor was made from."""
    if isinstance(function, Known) and function.function is not _rebuild_from_type and isinstance(args, tuple):
        return function.function(*args)
    return Foreign("torch.Tensor", args)


def _size(*values: Any) -> torch.Size:
    return torch.Size(_integers(values[0] if values else ()))


def _ordered_dict(pairs: Any = ()) -> OrderedDict[Any, Any]:
    """Return an ordered dict; its items mostly follow one by one, old files give them as a list of pairs."""
    if not isinstance(pairs, (list, tuple)) or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
        raise ValueError("an ordered dict is made of other things than pairs")
    if not all(isinstance(key, (str, int)) for key, _ in pairs):
        raise ValueError("an ordered dict has keys other than texts and whole numbers")
    return OrderedDict((key, value) for key, value in pairs)


def _known_globals() -> dict[tuple[str, str], Any]:
    """Return what a checkpoint may name: tensors, their types, and the ordered dict that holds them."""
    known: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): Known(_ordered_dict),
        ("torch", "Size"): Known(_size),
        ("torch._utils", "_rebuild_tensor"): Known(_rebuild_tensor),
        ("torch._utils", "_rebuild_tensor_v2"): Known(_rebuild_tensor),
        ("torch._utils", "_rebuild_tensor_v3"): Known(_rebuild_tensor_v3),
        ("torch._utils", "_rebuild_parameter"): Known(_rebuild_parameter),
        ("torch._utils", "_rebuild_parameter_with_state"): Known(_rebuild_parameter),
        ("torch._tensor", "_rebuild_from_type_v2"): Known(_rebuild_from_type),
    }
    for name, dtype in STORAGE_TYPES.items():
        for module in ("torch", "torch.cuda", "torch.storage"):
            known[module, name] = StorageType(dtype)
    for dtype in {*STORAGE_TYPES.values()}:
        known["torch", str(dtype).removeprefix("torch.")] = dtype
    return known


KNOWN = _known_globals()


class _StorageTable:
    """The storages of a file by key, each asked for once with ``load(key, dtype, count)``.

    :param room: bytes that all storages may take together: a file cannot hold more than itself.
    """

    def __init__(self, load: Callable[[str, torch.dtype, int], Tensor], room: int) -> None:
        self._load = load
        self._room = room
        self.held: dict[str, Storage] = {}

    def __call__(self, persistent_id: Any) -> Any:
        """Return what a persistent id stands for: a storage, or the class that an old file names with its source."""
        if isinstance(persistent_id, tuple) and persistent_id[:1] == ("module",) and len(persistent_id) > 1:
            return persistent_id[1] if isinstance(persistent_id[1], Foreign) else Foreign("torch.module")
        if not isinstance(persistent_id, tuple) or len(persistent_id) not in (5, 6) or persistent_id[0] != "storage":
            raise ValueError("a persistent id is no storage")
        _, kind, key, _, count, *view = persistent_id
        if not isinstance(kind, StorageType) or not isinstance(key, str) or type(count) is not int or count < 0:
            raise ValueError("a storage's kind, key or length is none")
        if key not in self.held:
            self._room -= count * kind.dtype.itemsize
            if self._room < 0:
                raise ValueError("the storages are larger than the file; it is truncated or damaged")
            self.held[key] = Storage(self._load(key, kind.dtype, count))
        storage = self.held[key]
        if storage.flat.dtype != kind.dtype or len(storage.flat) != count:
            raise ValueError(f"storage {ascii(key)[:40]} is described twice, and differently")
        return _part(storage, view[0]) if view and view[0] is not None else storage


def _part(storage: Storage, view: Any) -> Storage:
    """Return the part of a storage that very old files name by key, offset and length."""
    if not isinstance(view, tuple) or len(view) != 3:
        raise ValueError("a part of a storage has no offset and length")
    offset, count = _integers(view[1:])
    if offset + count > len(storage.flat):
        raise ValueError(f"a part of a storage reaches to {offset + count} of {len(storage.flat)}")
    return Storage(storage.flat[offset : offset + count])


def _numbers(data: bytes | memoryview, dtype: torch.dtype) -> Tensor:
    """Return a storage's bytes as a flat tensor of its own."""
    if not len(data):
        return torch.empty(0, dtype=dtype)
    if dtype == torch.bool:  # a byte other than 0 and 1 is no valid bool
        return torch.frombuffer(bytearray(data), dtype=torch.uint8) != 0
    return torch.frombuffer(bytearray(data), dtype=dtype)


def _read_zip(data: bytes) -> Any:
    """Read the layout of PyTorch 1.6 and later."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read_archive(archive, len(data))
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        KeyError,
        EOFError,
        OSError,
        NotImplementedError,
        RuntimeError,
        OverflowError,
    ) as error:
        raise ValueError(f"damaged zip archive ({type(error).__name__}: {error})") from error


def _read_archive(archive: zipfile.ZipFile, size: int) -> Any:
    """Read an opened archive of a file of ``size`` bytes."""
    entries = {entry.filename: entry for entry in archive.infolist()}
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        raise ValueError("it has compressed entries, which PyTorch never writes")
    if sum(entry.file_size for entry in entries.values()) > size:
        raise ValueError("its entries are larger than the file")
    objects = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(objects) != 1:
        raise ValueError("it has no data.pkl: a zip archive of something else")
    prefix = objects[0].removesuffix("data.pkl")
    order = prefix + "byteorder"
    if order in entries and archive.read(order) != b"little":
        raise ValueError("it was written on a big-endian machine; load and save it on another one")

    def load(key: str, dtype: torch.dtype, count: int) -> Tensor:
        content = archive.read(entries[f"{prefix}data/{key}"])
        if len(content) != count * dtype.itemsize:
            raise ValueError(f"storage {ascii(key)[:40]} has {len(content)} bytes, not {count} {dtype}")
        return _numbers(content, dtype)

    return unpickle(io.BytesIO(archive.read(objects[0])), KNOWN, _StorageTable(load, size))


def _read_legacy(data: bytes) -> Any:
    """Read the layout before PyTorch 1.6, which has the numbers after the object."""
    stream = io.BytesIO(data)
    if data[:1] != b"\x80" or unpickle(stream, {}) != LEGACY_MAGIC:
        raise ValueError("it is neither a zip archive nor begins with PyTorch's magic number")
    if unpickle(stream, {}) != LEGACY_PROTOCOL:
        raise ValueError("its protocol is unknown")
    machine = unpickle(stream, {})
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("it was written on a big-endian machine; load and save it on another one")
    storages = _StorageTable(lambda _, dtype, count: torch.empty(count, dtype=dtype), len(data) - stream.tell())
    result = unpickle(stream, KNOWN, storages)
    keys = unpickle(stream, {})
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("the list of its storages is none")
    _fill(storages.held, keys, memoryview(data)[stream.tell() :])
    return result


def _fill(storages: dict[str, Storage], keys: Iterable[str], data: memoryview) -> None:
    """Copy the numbers that follow the object into the storages it was made with."""
    waiting = dict(storages)
    for key in keys:
        storage = waiting.pop(key, None)
        if storage is None or len(data) < 8:
            raise ValueError(f"storage {ascii(key)[:40]} is not used, is there twice, or is missing at the end")
        flat = storage.flat
        (count,) = struct.unpack("<q", data[:8])
        length = len(flat) * flat.itemsize
        if count != len(flat) or len(data) < 8 + length:
            raise ValueError(f"storage {ascii(key)[:40]} is truncated, or has {count} numbers instead of {len(flat)}")
        flat.copy_(_numbers(data[8 : 8 + length], flat.dtype))
        data = data[8 + length :]
    if waiting:
        raise ValueError(f"the numbers of {len(waiting)} storages are missing at the end")
