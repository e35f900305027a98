# SPDX-License-Identifier: Apache-2.0
"""Weights files: safetensors and PyTorch's two layouts with bytes, or a pickle's operations, changed."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import struct
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import save

from dimp_ros.model.checkpoints.checkpoint import Weights, fill_model, read_weights
from dimp_ros.model.checkpoints.weights_file import WeightsInfo
from dimp_ros.tracker.config import TrackerConfig
from fuzz.draw import mutated, odd_float, odd_int, odd_text
from fuzz.run import Attempt

_GLOBALS = (
    (b"os", b"system"),
    (b"builtins", b"eval"),
    (b"builtins", b"exec"),
    (b"builtins", b"open"),
    (b"subprocess", b"Popen"),
    (b"torch", b"load"),
    (b"torch._utils", b"_rebuild_tensor_v2"),
    (b"torch._utils", b"_rebuild_tensor_v3"),
    (b"torch._utils", b"_rebuild_parameter"),
    (b"torch._tensor", b"_rebuild_from_type_v2"),
    (b"torch", b"Size"),
    (b"torch", b"FloatStorage"),
    (b"collections", b"OrderedDict"),
)
MARK = "it ran"


class _Hostile:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


@contextmanager
def checkpoints() -> Iterator[Attempt]:
    """Read weights files: accepted or refused by a ValueError, and never executed."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="fuzz-weights") as folder:
        files = _files(Path(folder))
        yield lambda draw: _attempt(draw, Path(folder), files)


def _attempt(draw: Random, folder: Path, files: dict[str, list[bytes]]) -> bool:
    """Write a file and read it; return whether it holds weights, of whatever kind."""
    suffix = draw.choice((".pth", ".pth", ".safetensors"))
    content = draw.choice(files[suffix])
    if suffix == ".safetensors":
        content = _safetensors(draw, content) if draw.random() < 0.6 else mutated(draw, content)
    elif content[:2] == b"PK" and draw.random() < 0.75:
        content = _archive(draw, content)
    else:
        content = mutated(draw, content)
    path = _written(folder, suffix, content)
    try:
        weights = read_weights(path)
        if draw.random() < 0.1:  # takes long: the model is built
            _fill(weights, path)
    except ValueError as error:
        str(error).encode()
        assert "fuzz-weights" in str(error) and len(str(error)) <= 1000, str(error)[:1100]
        return False
    finally:
        assert not (folder / MARK).exists(), "something in a file was run"
    assert isinstance(weights.info, WeightsInfo) and all(
        isinstance(one, torch.Tensor) for one in weights.tensors.values()
    )
    assert 0.0 <= weights.info.confidence(0.3) <= 1.0
    try:  # as the tracker does
        TrackerConfig(crop_size=weights.info.crop_size, search_scale=weights.info.search_scale)
    except ValueError as error:
        assert "it must be" in str(error), str(error)
    return True


def _fill(weights: Weights, path: Path) -> None:
    """Fill a model, which must be refused: these files hold a few tensors only."""
    try:
        fill_model(weights, path)
    except ValueError as error:
        assert "does not fit" in str(error) or "is not known here" in str(error), str(error)
    else:
        raise AssertionError("a few tensors were accepted as a whole model")


def _written(folder: Path, suffix: str, content: bytes) -> Path:
    path = folder / f"weights{suffix}"
    path.write_bytes(content)
    return path


def _files(folder: Path) -> dict[str, list[bytes]]:
    """Return small valid files of each kind, and some that try to execute something."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4, 6, generator=generator)
    net = OrderedDict(
        {
            "classifier.filter_optimizer.filter_reg": torch.full((1,), 0.1),
            "bb_regressor.iou_predictor.bias": torch.zeros(1),
            "view": base[1:, ::2],
            "transposed": base.T,
            "half": torch.ones(3, dtype=torch.float16),
            "empty": torch.zeros(0, 4),
            "feature_extractor.bn1.num_batches_tracked": torch.tensor(7),
        }
    )
    info = {
        "architecture": "dimp_lite",
        "crop_size": 288,
        "mean": [0.5] * 3,
        "confidence_knots": [[0.0, 0.1], [1.0, 0.9]],
    }
    contents: list[Any] = [
        {"net": net, "dimp_ros": info, "epoch": 3},
        dict(net),
        {"net": net, "stats": [_Hostile(open, str(folder / MARK), "w"), {"a": (1, 2.5)}]},
        {"net": net, "evil": _Hostile(exec, f"open({str(folder / MARK)!r}, 'w')")},
    ]
    files: dict[str, list[bytes]] = {".pth": [], ".safetensors": []}
    for content in contents:
        for modern in (True, False):
            torch.save(content, folder / "source.pth", _use_new_zipfile_serialization=modern)
            files[".pth"].append((folder / "source.pth").read_bytes())
    tensors = {name: tensor.contiguous() for name, tensor in net.items()}
    files[".safetensors"].append(save(tensors, metadata={"dimp_ros": json.dumps(info)}))
    return files


def _safetensors(draw: Random, content: bytes) -> bytes:
    """Return the file with a header that is valid JSON and wrong otherwise."""
    (size,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + size])
    info = json.loads(header["__metadata__"]["dimp_ros"])
    name = draw.choice([key for key in header if key != "__metadata__"])
    action = draw.randrange(8)
    if action == 0:
        header[name][draw.choice(("shape", "data_offsets"))] = [
            odd_int(draw, -1, 2**64) for _ in range(draw.randrange(4))
        ]
    elif action == 1:
        header[name]["dtype"] = draw.choice(("F64", "BF16", "F8_E4M3", "BOOL", "I8", "X", ""))
    elif action == 2:
        header[odd_text(draw)] = header.pop(name)
    elif action == 3:
        header["__metadata__"] = draw.choice(
            ({}, {"dimp_ros": odd_text(draw)}, {"dimp_ros": "[1]"}, {"dimp_ros": "null"}, {"dimp_ros": "[" * 100_000})
        )
    elif action == 4:
        info[draw.choice((*info, "std", "licence", "details", odd_text(draw)))] = draw.choice(
            (
                odd_float(draw),
                odd_text(draw),
                None,
                [],
                {},
                [[odd_float(draw), odd_float(draw)] for _ in range(3)],
                10**400,
            )
        )
    elif action == 5:
        info["confidence_knots"] = [
            [10**400 if draw.random() < 0.05 else draw.random() for _ in range(2)] for _ in range(draw.randrange(4))
        ]
    if action in (4, 5):
        header["__metadata__"]["dimp_ros"] = json.dumps(info)
    text = json.dumps(header).encode()
    if action == 6:
        text = mutated(draw, text)
    elif action == 7:
        text = b"[" * draw.choice((10, 1000, 100_000)) + text
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


def _archive(draw: Random, content: bytes) -> bytes:
    """Return the archive with one entry changed and valid checksums."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    program = next(name for name in entries if name.endswith("data.pkl"))
    action = draw.randrange(10)
    if action < 1:
        entries[program] = mutated(draw, entries[program])
    elif action < 7:
        entries[program] = _program(draw, entries[program])
    elif action < 9:
        name = draw.choice(list(entries))
        entries[name] = mutated(draw, entries[name])
    else:
        del entries[draw.choice(list(entries))]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if draw.random() < 0.02 else zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return stream.getvalue()


def _program(draw: Random, program: bytes) -> bytes:
    """Return a pickle with operations inserted, deleted, replaced, or with other numbers."""
    places = [place for _, _, place in pickletools.genops(program)]
    steps = [program[begin:end] for begin, end in zip(places, [*places[1:], len(program)], strict=True)]
    for _ in range(draw.choice((1, 1, 2, 5))):
        at = draw.randrange(len(steps))
        kind = draw.randrange(6)
        if kind == 0:
            del steps[at]
        elif kind == 1:
            steps.insert(at, _operation(draw))
        elif kind == 2:
            steps.insert(at, draw.choice(steps))
        elif kind == 3:
            module, name = draw.choice(_GLOBALS)
            steps[at : at + draw.randrange(2)] = [b"c" + module + b"\n" + name + b"\n"]
        elif kind == 4:
            numbers = [place for place, step in enumerate(steps) if step[:1] in b"KMJ\x8aG"] or [at]
            number = draw.choice((0, 1, -1, 2**31, 2**62, 2**70, 10**30, None, True, 0.5, float("nan"), "text", (), []))
            steps[draw.choice(numbers)] = pickle.dumps(number, 2)[2:-1]
        else:
            steps.insert(at, draw.choice((b")" + b"\x85" * 2000, b"(" * 50, b"]" + b"2" * 100, b"}")))
    return b"".join(steps)


def _operation(draw: Random) -> bytes:
    """Return any pickle operation with an argument of its type."""
    opcode = draw.choice(pickletools.opcodes)
    kind, short = opcode.arg, draw.choice((b"", b"0", b"11", b"ab"))
    argument = b""
    if kind is not None and kind.n >= 0:
        argument = draw.choice((b"\0", b"\1", b"\xff")) * kind.n
    elif kind is not None and kind.n == pickletools.UP_TO_NEWLINE:
        argument = (short + b"\n") * (2 if kind.name.endswith("pair") else 1)
    elif kind is not None:
        form = {pickletools.TAKEN_FROM_ARGUMENT1: "<B", pickletools.TAKEN_FROM_ARGUMENT8U: "<Q"}.get(kind.n, "<I")
        argument = struct.pack(form, len(short)) + short
    return opcode.code.encode("latin-1") + argument
